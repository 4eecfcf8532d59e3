"""tunnel.core.path.backoff: at once after a loss, then spread over a growing range."""

from __future__ import annotations

import random

import pytest

from tunnel.core.path.backoff import QUICK_RETRIES, Backoff


def _delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_delay() for _ in range(count)]


def test_first_try_comes_at_once_and_the_rest_doubles_up_to_one_cap_and_later_to_another() -> None:
    delays = _delays(Backoff(random=lambda: 1.0), 26)
    assert delays[:5] == [0.2, 0.5, 1.0, 2.0, 3.0]
    assert delays[5:20] == [3.0] * 15
    assert delays[20:] == [6.0, 12.0, 24.0, 30.0, 30.0, 30.0]


def test_jitter_is_full() -> None:
    assert _delays(Backoff(random=lambda: 0.0), 5) == [0.0] * 5
    dice = random.Random(1)
    backoff = Backoff(random=dice.random)
    delays = _delays(backoff, 520)[30:]
    assert 13.0 < sum(delays) / len(delays) < 17.0
    assert min(delays) < 1.0
    assert max(delays) > 29.0


def test_attempts_without_end_never_overflow() -> None:
    backoff = Backoff(random=lambda: 1.0, attempts=10**9)
    assert backoff.next_delay() == 30.0


@pytest.mark.parametrize(("dice", "delay"), [(0.0, 60.0), (1.0, 90.0)])
def test_advice_of_the_server_is_heeded(dice: float, delay: float) -> None:
    assert Backoff(random=lambda: dice).next_delay(60.0) == delay


def test_link_that_held_is_dialled_again_at_once() -> None:
    backoff = Backoff(random=lambda: 1.0)
    _delays(backoff, 8)
    backoff.connected_for(30.0)
    assert backoff.next_delay() == 0.2


def test_server_that_accepts_and_drops_is_not_dialled_in_a_tight_loop() -> None:
    backoff = Backoff(random=lambda: 1.0)
    delays = []
    for _ in range(QUICK_RETRIES + 26):
        delays.append(backoff.next_delay())
        backoff.connected_for(0.1)
    assert delays[:QUICK_RETRIES] == [0.2] * QUICK_RETRIES
    assert delays[-1] == 30.0
    backoff.connected_for(31.0)
    assert [backoff.next_delay() for _ in range(2)] == [0.2, 0.5]
