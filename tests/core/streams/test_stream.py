"""tunnel.core.streams.stream: the two halves by themselves."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.frame_factory import FrameFactory as Frame
from tests.core.frame_factory import Victim
from tunnel.core.streams.states import Send
from tunnel.core.streams.stream import INTERACTIVE_BYTES, INTERACTIVE_HINT_BYTES, MAX_CREDIT_AHEAD_BYTES, SendHalf
from tunnel.core.wire.errors import Code, LocalProtocolError, RemoteProtocolError
from tunnel.core.wire.frames import TrafficClass


def _half(hint: TrafficClass = TrafficClass.AUTO, *, credit: int = 1 << 20) -> SendHalf:
    half = SendHalf(hint)
    half.state = Send.OPEN
    half.grant(credit)
    return half


@given(st.lists(st.binary(max_size=600), max_size=20), st.lists(st.integers(1, 900), min_size=1, max_size=60))
def test_bytes_come_out_in_order_in_whatever_pieces(written: list[bytes], takes: list[int]) -> None:
    half = _half()
    for data in written:
        half.push(data)
    whole = b"".join(written)
    assert half.queued == len(whole)
    out = b""
    for count in takes:
        if half.ready_bytes:
            piece = half.take(count, 0.0)
            assert 0 < len(piece) <= count
            out += piece
    assert out == whole[: len(out)]
    assert (half.offset, half.queued) == (len(out), len(whole) - len(out))


def test_whole_chunk_is_handed_on_without_a_copy() -> None:
    half = _half()
    data = b"x" * 5000
    half.push(data)
    assert half.take(5000, 0.0) is data


def test_large_chunk_is_not_filled_up_from_the_next() -> None:
    half = _half()
    chunks = [b"x" * 5000, b"y" * 4000, b"z" * 4500]
    for data in chunks:
        half.push(data)
    assert half.take(8000, 0.0) is chunks[0]
    assert half.take(8100, 0.0) == b"y" * 4000 + b"z" * 4100


def test_credit_bounds_what_is_ready() -> None:
    half = _half(credit=3)
    half.push(b"12345")
    assert (half.ready, half.ready_bytes) == (True, 3)
    assert half.take(100, 0.0) == b"123"
    assert (half.ready, half.ready_bytes) == (False, 0)
    half.grant(4)
    assert half.take(100, 0.0) == b"4"


@pytest.mark.parametrize("limit", [9, 5 + MAX_CREDIT_AHEAD_BYTES + 1])
def test_senseless_credit_is_a_fault(limit: int) -> None:
    half = _half(credit=10)
    half.push(b"12345")
    half.take(5, 0.0)
    half.grant(5 + MAX_CREDIT_AHEAD_BYTES if limit > 10 else 10)
    with pytest.raises(RemoteProtocolError) as caught:
        half.grant(limit)
    assert caught.value.code is Code.FLOW_CONTROL


def test_end_waits_for_the_bytes_before_it() -> None:
    half = _half(credit=1)
    half.push(b"12")
    half.finish()
    half.finish()
    half.push(b"ignored")
    states = [(half.take(9, 0.0), half.ready)]
    half.grant(2)
    states.append((half.take(9, 0.0), half.ready))
    assert states == [(b"1", False), (b"2", True)]
    assert half.state is Send.FINISHING


def test_stop_drops_what_waits_and_lets_the_end_go() -> None:
    half = _half(credit=0)
    half.push(b"12")
    half.stop()
    assert (half.ready, half.queued, half.state) == (True, 0, Send.FINISHING)
    half.stop()


def test_nothing_is_written_before_the_stream_is_open() -> None:
    half = SendHalf(TrafficClass.AUTO)
    with pytest.raises(LocalProtocolError):
        half.push(b"x")
    with pytest.raises(LocalProtocolError):
        half.finish()
    with pytest.raises(RemoteProtocolError):
        half.stop()


@pytest.mark.parametrize(
    ("hint", "bound"),
    [
        (TrafficClass.AUTO, INTERACTIVE_BYTES),
        (TrafficClass.INTERACTIVE, INTERACTIVE_HINT_BYTES),
        (TrafficClass.BULK, -1),
    ],
)
def test_little_sent_lately_is_interactive(hint: TrafficClass, bound: int) -> None:
    half = _half(hint)
    half.push(b"x" * max(bound, 1))
    assert half.interactive(0.0) == (bound >= 0)
    half.push(b"x")
    assert not half.interactive(0.0)


def test_what_was_sent_is_forgotten_by_halves() -> None:
    half = _half()
    half.push(b"x" * 4 * INTERACTIVE_BYTES)
    half.take(1 << 20, 10.0)
    assert not half.interactive(10.0)
    assert not half.interactive(10.4)
    assert half.interactive(10.6)


def test_window_of_tiny_frames_costs_about_its_bytes() -> None:
    victim = Victim()
    stream = victim.accepted()
    for _ in range(64):
        victim.receive(*(Frame.data(stream.id, b"xy") for _ in range(2048)))
    assert stream.receive.queued == 256 * 1024
    assert sum(sys.getsizeof(chunk) + 8 for chunk in stream.receive.chunks) < 2 * 256 * 1024
    assert b"".join(victim.session.take(stream)) == b"xy" * (128 * 1024)
