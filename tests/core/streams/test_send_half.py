"""tunnel.core.streams.send_half: its queue, its credit, its life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.streams.send_half import (
    INTERACTIVE_BYTES,
    INTERACTIVE_HINT_BYTES,
    MAX_CREDIT_AHEAD_BYTES,
    Send,
    SendHalf,
)
from tunnel.core.wire.errors import Code, LocalProtocolError, RemoteProtocolError
from tunnel.core.wire.frames import TrafficClass


def _half(hint: TrafficClass = TrafficClass.AUTO, *, credit: int = 1 << 20) -> SendHalf:
    half = SendHalf(hint)
    half.open_up()
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


def test_it_is_done_when_the_packet_with_its_end_is_acknowledged() -> None:
    half = _half()
    half.push(b"12")
    half.finish()
    assert not half.takes_bytes
    half.take(9, 0.0)
    half.end_taken()
    half.end_carried(7)
    assert (half.state, half.fin_seq, half.ready, half.done) == (Send.FIN_SENT, 7, False, False)
    half.stop()
    half.end_arrived()
    assert half.done
    half.stop()
    assert half.done


def test_a_writer_that_had_to_wait_is_told_once_to_go_on() -> None:
    half = _half()
    half.push(b"12345")
    assert half.has_room(6)
    assert not half.drained()
    assert not half.has_room(5)
    assert not half.interactive(0.0), "it has more"
    assert not half.drained()
    half.take(3, 0.0)
    assert half.drained()
    assert half.interactive(0.0)
    assert not half.drained()
