"""The allowance for frames that move nothing."""

from __future__ import annotations

from tunnel.aio.http.flood import BURST_BYTES, REFILL_BYTES_PER_S, RESET_BYTES, FloodGuard

PING_BYTES = 17


def pings(guard: FloodGuard, count: int, now_s: float) -> bool:
    return guard.received(count * PING_BYTES, 0, 0, now_s)


def test_a_burst_and_no_more() -> None:
    guard = FloodGuard(0.0)
    assert pings(guard, BURST_BYTES // PING_BYTES, 0.0)
    assert not pings(guard, 1, 0.0)


def test_it_fills_with_time_up_to_the_burst() -> None:
    guard = FloodGuard(0.0)
    assert pings(guard, BURST_BYTES // PING_BYTES, 0.0)
    assert pings(guard, int(REFILL_BYTES_PER_S) // PING_BYTES, 1.0)
    assert not pings(guard, BURST_BYTES // PING_BYTES + 1, 1000.0)


def test_payload_pays_for_its_frames() -> None:
    guard = FloodGuard(0.0)
    for _ in range(10_000):
        assert guard.received(9 + 20, 20, 0, 0.0)


def test_empty_frames_do_not() -> None:
    guard = FloodGuard(0.0)
    assert not all(guard.received(9, 0, 0, 0.0) for _ in range(10_000))


def test_a_download_pays_for_the_pings_and_window_updates_that_it_causes() -> None:
    guard = FloodGuard(0.0)
    for _ in range(10_000):  # packets so small that each causes all of them
        guard.sent(20)
        assert guard.received(2 * 13 + PING_BYTES, 0, 0, 0.0)


def test_resets_cost_more_than_their_frames() -> None:
    guard = FloodGuard(0.0)
    assert guard.received(200 * 40, 0, 200, 0.0)
    assert not guard.received(200 * 40, 0, 200, 0.0)
    assert 400 * 40 < BURST_BYTES < 400 * (40 + RESET_BYTES)
