"""tunnel.core.path.spans: of several acks, the pair with the least queue counts."""

from __future__ import annotations

import pytest

from tunnel.core.path.spans import Round, Span


def test_the_pair_with_the_least_queue_counts_and_of_equal_ones_the_last() -> None:
    span = Span(5.0)
    for in_flight_bytes, queue_s in ((100, 0.03), (80, 0.01), (90, 0.01), (70, 0.02)):
        span.add(10, in_flight_bytes, queue_s, 0.1 + queue_s)
    assert (span.acks, span.bytes, span.start_s) == (4, 40, 5.0)
    assert (span.queue_s, span.in_flight_bytes, span.most_in_flight_bytes) == (0.01, 90, 100)
    assert span.rtt_s == pytest.approx(0.11)
    assert span.spread_s == pytest.approx(0.0175 - 0.01)


def test_a_round_knows_the_one_before() -> None:
    before = Round(0.0, 7, follows_blocked=False)
    before.blocked = True
    after = Round(1.0, 9, follows_blocked=before.blocked)
    assert (after.blocked, after.follows_blocked, after.end_seq) == (False, True, 9)
