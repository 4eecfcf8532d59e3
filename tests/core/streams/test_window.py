"""tunnel.core.streams.window: when credit is given, how windows grow, and that tiny ones never stall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.pair import Pair
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire.errors import LocalProtocolError
from tunnel.core.wire.limits import Limits

RTT_S = 0.1


def _window(size: int, *, maximum: int = 1 << 20, total: int = 1 << 20) -> ReceiveWindow:
    budget = Budget(total_bytes=total)
    budget.reserve(size)
    return ReceiveWindow(size, maximum, budget)


def test_bytes_up_to_the_credit_are_allowed_and_no_more() -> None:
    window = _window(100)
    assert window.receive(60)
    assert window.receive(40)
    assert not window.receive(1)


def test_credit_goes_out_when_half_the_window_is_consumed() -> None:
    window = _window(100)
    window.receive(100)
    assert window.consume(49, 0.0, RTT_S) is None
    assert window.consume(1, 0.0, RTT_S) == 150
    assert window.granted == 150


def test_consuming_more_than_arrived_is_our_own_fault() -> None:
    window = _window(100)
    window.receive(10)
    with pytest.raises(LocalProtocolError):
        window.consume(11, 0.0, RTT_S)
    with pytest.raises(LocalProtocolError):
        window.consume(-1, 0.0, RTT_S)


def _drain_half(window: ReceiveWindow, now: float) -> None:
    half = window.granted - window.received
    window.receive(half)
    window.consume(half, now, RTT_S)


def test_window_used_up_within_four_round_trips_doubles_up_to_its_maximum() -> None:
    window = _window(100, maximum=250)
    for now in (0.0, 0.1, 0.2, 0.3):
        _drain_half(window, now)
    assert window.size_bytes == 250
    assert window.granted - window.consumed == 250


def test_a_burst_counts_for_all_that_it_used_up() -> None:
    window = _window(100)
    for now in (0.0, 0.3):  # a whole window in three round trips, with one credit for it
        window.receive(100)
        assert window.consume(100, now, RTT_S)
    assert window.size_bytes == 200


def test_slow_reader_keeps_a_small_window() -> None:
    window = _window(100)
    for now in (0.0, 1.0, 2.0, 3.0):
        _drain_half(window, now)
    assert window.size_bytes == 100


def test_window_grows_only_within_the_budget() -> None:
    window = _window(100, total=250)
    for now in (0.0, 0.1, 0.2):
        _drain_half(window, now)
    assert window.size_bytes == 100


def test_close_gives_everything_back() -> None:
    budget = Budget(total_bytes=1000)
    budget.reserve(100)
    window = ReceiveWindow(100, 1000, budget)
    for now in (0.0, 0.1):
        _drain_half(window, now)
    assert budget.used_bytes == 200
    window.close()
    window.close()
    assert budget.used_bytes == 0


@given(
    initial=st.integers(1, 20),
    maximum=st.integers(1, 100),
    reads=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    size=st.integers(0, 300),
)
def test_tiny_windows_and_slow_readers_finish(initial: int, maximum: int, reads: list[int], size: int) -> None:
    limits = Limits(initial_window_bytes=initial, min_window_bytes=1, max_window_bytes=max(initial, maximum))
    pair = Pair(agent_limits=limits, server_limits=limits)
    sender, receiver = pair.open()
    data = bytes(one % 251 for one in range(size))
    pair.server.session.send_data(sender, data, pair.now)
    pair.server.session.send_fin(sender, pair.now)
    got, turn = b"", 0
    while pair.agent.session.stream(receiver.id) is not None and turn < 2000:
        pair.transfer()
        waiting = b"".join(pair.agent.session.take(receiver))
        got += waiting
        while waiting:
            step = reads[turn % len(reads)]
            turn += 1
            pair.now += 0.01
            pair.agent.session.consumed(receiver, len(waiting[:step]), pair.now)
            waiting = waiting[step:]
            pair.transfer()
        turn += 1
        if receiver.receive.state.name == "FIN_RECEIVED" and receiver.send.state.name == "OPEN":
            pair.agent.session.send_fin(receiver, pair.now)
        pair.pass_time(0.005)
    assert got == data
    assert pair.agent.session.statistics().budget_used_bytes == 0
