"""tunnel.core.delay: telling our own queue from the way back, the clocks, jitter and a longer path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.delay import MAX_JITTER_SHARE, PathDelay

WRAP = 1 << 32


def _sample(delay: PathDelay, *, forward_s: float, back_s: float = 0.02, offset_us: int = 0, now: float = 0.0) -> None:
    delay.sample(forward_s + back_s, 0.0, (round(forward_s * 1e6) + offset_us) % WRAP, now)


def _round(delay: PathDelay, forwards_s: list[float], **rest: float) -> float:
    delay.start_round()
    for forward_s in forwards_s:
        _sample(delay, forward_s=forward_s, **rest)  # type: ignore[arg-type]
    assert delay.round_queue_s is not None
    return delay.round_queue_s


def test_nothing_is_known_before_the_first_sample() -> None:
    delay = PathDelay()
    assert (delay.base_rtt_s, delay.round_queue_s, delay.queue_s, delay.srtt_s) == (None, None, 0.0, 0.0)


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
    assert _round(delay, [0.02, 0.02, 0.02], back_s=0.3) == 0.0
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
    assert (delay.base_rtt_s, delay.round_queue_s) == (0.05, None)
    delay.rebase(8.0)
    assert delay.base_rtt_s == 0.05


def test_queue_of_a_round_is_between_its_least_and_its_mean() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02)
    assert _round(delay, [0.03, 0.05]) == pytest.approx(0.015)


def test_new_least_in_a_round_counts_for_the_whole_round() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.05)
    assert _round(delay, [0.05, 0.03, 0.05]) == pytest.approx((0.0 + 0.0 + 0.02) / 3 / 2, abs=1e-6)


def test_what_every_round_shows_is_jitter() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02, back_s=0.18)  # a lucky one
    jitter = [0.026, 0.034] * 4
    first = _round(delay, jitter, back_s=0.18)
    assert first == pytest.approx(0.008)
    delay.start_round()
    assert _round(delay, jitter, back_s=0.18) == 0.0
    _sample(delay, forward_s=0.034, back_s=0.18)
    assert delay.queue_s == 0.0
    assert _round(delay, [0.022] * 3, back_s=0.18) == 0.0
    assert _round(delay, jitter, back_s=0.18) == pytest.approx(0.006)


def test_jitter_is_a_small_part_of_the_round_trip() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02)
    queue = [0.08] * 8
    _round(delay, queue)
    assert _round(delay, queue) == pytest.approx(0.06 - 0.04 * MAX_JITTER_SHARE)


def test_round_of_few_samples_says_nothing_of_jitter() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02, back_s=0.18)
    _round(delay, [0.03] * 7, back_s=0.18)
    assert _round(delay, [0.03] * 7, back_s=0.18) == pytest.approx(0.01)


def test_rebase_takes_this_round_for_the_empty_path() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02)
    _round(delay, [0.1, 0.1])
    delay.rebase(5.0)
    assert delay.round_queue_s == 0.0
    assert delay.base_rtt_s == pytest.approx(0.12)
    assert delay.base_seen_s == 5.0
    assert _round(delay, [0.12, 0.12]) == pytest.approx(0.02)


def test_it_knows_when_the_empty_path_was_last_seen() -> None:
    delay = PathDelay()
    _sample(delay, forward_s=0.02, now=1.0)
    _sample(delay, forward_s=0.03, now=2.0)
    assert delay.base_seen_s == 1.0
    _sample(delay, forward_s=0.02, now=3.0)
    assert delay.base_seen_s == 3.0
