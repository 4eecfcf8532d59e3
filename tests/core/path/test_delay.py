"""tunnel.core.path.delay: telling our own queue from the way back, the clocks and a longer path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.path.delay import SEEN_S, PathDelay

WRAP = 1 << 32


def _sample(delay: PathDelay, *, forward_s: float, back_s: float = 0.02, offset_us: int = 0, now: float = 0.0) -> None:
    delay.sample(forward_s + back_s, 0.0, (round(forward_s * 1e6) + offset_us) % WRAP, now)


def test_nothing_is_known_before_the_first_sample() -> None:
    delay = PathDelay()
    assert (delay.base_rtt_s, delay.queue_s, delay.rtt_s, delay.srtt_s) == (0.0, 0.0, 0.0, 0.0)


@given(st.integers(0, WRAP - 1))
def test_clocks_may_differ_by_anything(offset_us: int) -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.03, offset_us=offset_us)
    _sample(delay, forward_s=0.07, offset_us=offset_us)
    assert delay.queue_s == pytest.approx(0.04)
    _sample(delay, forward_s=0.01, offset_us=offset_us)
    assert delay.queue_s == 0.0
    _sample(delay, forward_s=0.05, offset_us=offset_us)
    assert delay.queue_s == pytest.approx(0.04)


def test_queue_of_the_peer_is_not_ours() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02)
    for _ in range(3):
        _sample(delay, forward_s=0.02, back_s=0.3)
        assert delay.queue_s == 0.0
    assert delay.srtt_s > 0.05


def test_queue_is_never_longer_than_the_round_trip_has_grown() -> None:
    delay = PathDelay()
    delay.sample(0.05, 0.0, 0, 0.0)
    delay.sample(0.06, 0.0, 5_000_000, 0.0)
    assert delay.queue_s == pytest.approx(0.01)


def test_delay_of_an_ack_is_left_out_as_far_as_it_is_believed() -> None:
    delay = PathDelay()
    delay.sample(0.06, 0.01, None, 0.0)
    assert delay.base_rtt_s == pytest.approx(0.05)
    delay.sample(0.06, 3600.0, None, 0.0)
    assert delay.base_rtt_s == pytest.approx(0.035)
    delay.sample(0.01, 3600.0, None, 0.0)
    assert delay.base_rtt_s == 1e-6


def test_ping_gives_a_round_trip_and_says_nothing_of_a_queue() -> None:
    delay = PathDelay()
    delay.sample(0.05, 0.0, None, 7.0)
    delay.sample(0.09, 0.0, None, 8.0)
    assert (delay.base_rtt_s, delay.rtt_s, delay.queue_s) == (0.05, 0.09, 0.0)


def test_foreign_part_of_a_queue_belongs_to_the_path_from_then_on() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02)
    _sample(delay, forward_s=0.1)
    delay.rebase(0.06, 0.12, 5.0)
    assert (delay.base_rtt_s, delay.base_seen_s) == (0.12, 5.0)
    _sample(delay, forward_s=0.12, back_s=0.06)
    assert delay.queue_s == pytest.approx(0.04)
    _sample(delay, forward_s=0.02)
    assert (delay.base_rtt_s, delay.queue_s) == (0.04, 0.0)


def test_rebase_makes_no_path_shorter() -> None:
    delay = PathDelay()
    delay.sample(0.04, 0.0, None, 0.0)
    delay.rebase(0.0, 0.01, 1.0)
    assert delay.base_rtt_s == 0.04


def test_it_knows_when_the_empty_path_was_last_seen() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02, now=1.0)
    _sample(delay, forward_s=0.03, now=2.0)
    assert delay.base_seen_s == 1.0
    _sample(delay, forward_s=0.02 + SEEN_S / 2, now=3.0)
    assert delay.base_seen_s == 3.0
