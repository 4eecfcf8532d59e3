"""tunnel.core.streams.receive_half: its queue, its credit, its life."""

from __future__ import annotations

import sys

import pytest

from tests.core.frame_factory import FrameFactory as Frame
from tests.core.frame_factory import Victim
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.receive_half import ReceiveHalf
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire.errors import Code, RemoteProtocolError


def _half(window_bytes: int = 100) -> ReceiveHalf:
    half = ReceiveHalf(ReceiveWindow(window_bytes, window_bytes, Budget(total_bytes=1000)))
    half.open_up()
    return half


def test_it_is_done_when_the_end_has_come_and_all_before_it_was_consumed() -> None:
    half = _half()
    half.push(b"12")
    half.push(b"3")
    half.finish()
    assert (half.more_may_come, half.done) == (False, False)
    assert half.take() == [b"12", b"3"]
    assert not half.done, "whoever took it may hold it for long"
    half.window.consume(3, 0.0, 0.1)
    assert half.done


def test_what_nobody_reads_is_dropped_and_the_peer_told_once() -> None:
    half = _half()
    half.push(b"12")
    assert half.stop()
    half.push(b"3")
    assert half.queued == 0
    assert not half.stop()
    half.finish()
    assert half.done


def test_a_peer_that_has_finished_is_not_asked_to_stop() -> None:
    half = _half()
    half.push(b"12")
    half.finish()
    assert not half.stop()
    assert half.done


@pytest.mark.parametrize("late", [lambda half: half.push(b"x"), lambda half: half.finish()])
def test_nothing_comes_behind_the_end(late: object) -> None:
    assert callable(late)
    half = _half()
    half.finish()
    with pytest.raises(RemoteProtocolError):
        late(half)


def test_bytes_beyond_the_credit_are_a_fault() -> None:
    half = _half(3)
    half.push(b"123")
    with pytest.raises(RemoteProtocolError) as caught:
        half.push(b"4")
    assert caught.value.code is Code.FLOW_CONTROL


def test_window_of_tiny_frames_costs_about_its_bytes() -> None:
    victim = Victim()
    stream = victim.accepted()
    for _ in range(64):
        victim.receive(*(Frame.data(stream.id, b"xy") for _ in range(2048)))
    assert stream.receive.queued == 256 * 1024
    assert sum(sys.getsizeof(chunk) + 8 for chunk in stream.receive.chunks) < 2 * 256 * 1024
    assert b"".join(victim.session.take(stream)) == b"xy" * (128 * 1024)
