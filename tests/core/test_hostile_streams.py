"""A peer that breaks the rules of streams: what ends the session, and what does not (PROTO 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protos import tunnel_pb2 as pb
from tests.core.frame_factory import FrameFactory as Frame
from tests.core.frame_factory import Victim
from tunnel.core import events as ev
from tunnel.core.wire.errors import Code, OpenRefused, RemoteProtocolError, StreamReset
from tunnel.core.wire.limits import MIB, Limits
from tunnel.core.wire.target import TcpTarget

Fault = Callable[[Victim], pb.Frame]


def _of(make: Callable[[int], pb.Frame], prepare: Callable[[Victim], object]) -> Fault:
    """A frame for stream 1, or for 2 when the victim opened it."""

    def fault(victim: Victim) -> pb.Frame:
        stream = prepare(victim)
        return make(getattr(stream, "id", 1))

    return fault


def _data(stream_id: int) -> pb.Frame:
    return Frame.data(stream_id, b"x")


def _finished(victim: Victim) -> object:
    stream = victim.accepted()
    victim.receive(Frame.fin(stream.id))
    return stream


def _unanswered(victim: Victim) -> None:
    victim.receive(Frame.open(1))


def _nothing(victim: Victim) -> None:
    pass


def _unsent(victim: Victim) -> object:
    """A stream whose OPEN waits to be sent: the peer can only guess its number."""
    return victim.session.open_stream(TcpTarget("h", 1), victim.now, deadline_s=1.0)


ANY_FRAME: dict[str, Callable[[int], pb.Frame]] = {
    "data": _data,
    "credit": lambda one: Frame.credit(one, 1 << 20),
    "accept": Frame.accept,
    "fin": Frame.fin,
    "reset": Frame.reset,
    "stop_sending": Frame.stop_sending,
}

FAULTS: dict[str, Fault] = {
    "data before ACCEPT was sent": _of(_data, _unanswered),
    "data before ACCEPT came": _of(_data, Victim.opening),
    "fin before ACCEPT was sent": _of(Frame.fin, _unanswered),
    "fin before ACCEPT came": _of(Frame.fin, Victim.opening),
    "credit before ACCEPT": _of(ANY_FRAME["credit"], Victim.opening),
    "stop_sending before ACCEPT": _of(Frame.stop_sending, Victim.opening),
    "data after FIN": _of(_data, _finished),
    "second FIN": _of(Frame.fin, _finished),
    "ACCEPT of the peer's own stream": _of(Frame.accept, _unanswered),
    "second ACCEPT": _of(Frame.accept, Victim.opened),
    "OPEN of an id in use": _of(Frame.open, Victim.accepted),
    "OPEN of the other side's parity": lambda victim: Frame.open(2),
    "OPEN of an id far out of range": lambda victim: Frame.open(1 << 62),
    "stream 0": lambda victim: Frame.fin(0),
    **{f"{name} of a stream that never was": _of(make, _nothing) for name, make in ANY_FRAME.items()},
    **{f"{name} of a stream not announced yet": _of(make, _unsent) for name, make in ANY_FRAME.items()},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault_of_the_peer_is_its_protocol_error(fault: Fault) -> None:
    victim = Victim()
    frame = fault(victim)
    with pytest.raises(RemoteProtocolError) as caught:
        victim.receive(frame)
    assert caught.value.code is Code.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [5, 3])
def test_an_id_that_was_passed_over_is_used_up(first: int) -> None:
    victim = Victim()
    victim.receive(Frame.open(first))
    with pytest.raises(RemoteProtocolError, match=f"OPEN of stream 1 after {first}"):
        victim.receive(Frame.open(1))


def test_data_beyond_the_window_is_a_flow_control_error() -> None:
    victim = Victim(Limits(initial_window_bytes=8, min_window_bytes=8))
    stream = victim.accepted()
    victim.receive(Frame.data(stream.id, b"x" * 8))
    with pytest.raises(RemoteProtocolError) as caught:
        victim.receive(Frame.data(stream.id, b"x"))
    assert caught.value.code is Code.FLOW_CONTROL
    assert stream.receive.queued == 8


def test_first_frame_above_the_window_is_a_flow_control_error() -> None:
    victim = Victim(Limits(initial_window_bytes=8, min_window_bytes=8))
    stream = victim.accepted()
    with pytest.raises(RemoteProtocolError, match="credit is 8") as caught:
        victim.receive(Frame.data(stream.id, b"x" * 9))
    assert caught.value.code is Code.FLOW_CONTROL
    assert stream.receive.queued == 0


def test_what_was_taken_but_not_consumed_still_counts_against_the_window() -> None:
    victim = Victim(Limits(initial_window_bytes=8, min_window_bytes=8))
    stream = victim.accepted()
    victim.receive(Frame.data(stream.id, b"x" * 8))
    assert victim.session.take(stream) == [b"x" * 8]
    with pytest.raises(RemoteProtocolError):
        victim.receive(Frame.data(stream.id, b"x"))


@pytest.mark.parametrize("limit", [65535, 0, 1025 * MIB, (1 << 62) - 1])
def test_credit_never_goes_down_nor_far_ahead(limit: int) -> None:
    victim = Victim()
    stream = victim.accepted(credit=65536)
    with pytest.raises(RemoteProtocolError) as caught:
        victim.receive(Frame.credit(stream.id, limit))
    assert caught.value.code is Code.FLOW_CONTROL
    assert stream.send.credit == 65536


@pytest.mark.parametrize("credit", [1025 * MIB, (1 << 62) - 1, 1 << 62, (1 << 64) - 1])
def test_first_credit_is_held_to_the_same_bound(credit: int) -> None:
    victim = Victim()
    with pytest.raises(RemoteProtocolError) as caught:
        victim.receive(Frame.open(1, credit=credit))
    assert caught.value.code is Code.FLOW_CONTROL

    victim = Victim()
    stream = victim.opening()
    with pytest.raises(RemoteProtocolError) as caught:
        victim.receive(Frame.accept(stream.id, credit=credit))
    assert caught.value.code is Code.FLOW_CONTROL


def test_same_credit_again_is_harmless() -> None:
    victim = Victim()
    stream = victim.accepted(credit=100)
    victim.receive(Frame.credit(stream.id, 100))
    assert stream.send.credit == 100


@pytest.mark.parametrize("make", ANY_FRAME.values(), ids=ANY_FRAME)
def test_frames_that_crossed_our_reset_are_ignored(make: Callable[[int], pb.Frame]) -> None:
    victim = Victim()
    stream = victim.opened()
    victim.session.reset_stream(stream, Code.CANCELLED)
    victim.receive(make(stream.id))
    assert victim.events() == []
    assert [frame.WhichOneof("kind") for frame in victim.answers()] == ["reset"]


def test_nothing_of_a_stream_is_sent_after_the_peers_reset() -> None:
    victim = Victim()
    stream = victim.opened()
    victim.session.send_data(stream, b"x" * 1000, victim.now)
    victim.session.consumed(stream, 0, victim.now)
    victim.receive(Frame.reset(stream.id, code=8, text="gone"))
    assert victim.answers() == []
    (ended,) = victim.events()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, StreamReset)
    assert (ended.error.code, ended.error.text) == (Code.CONNECTION_RESET, "gone")
    assert victim.session.send_data(stream, b"x", victim.now)
    assert victim.answers() == []


def test_reset_of_an_opening_is_its_refusal() -> None:
    victim = Victim()
    stream = victim.opening()
    victim.receive(Frame.reset(stream.id, code=20, text="10.1.0.9:80: connection refused"))
    (ended,) = victim.events()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, OpenRefused)
    assert ended.error.code is Code.REFUSED


def test_peer_that_gives_up_its_opening_resets_it() -> None:
    victim = Victim()
    victim.receive(Frame.open(1), Frame.reset(1))
    opened, ended = victim.events()
    assert isinstance(opened, ev.StreamOpened)
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, StreamReset)
    assert victim.session.stream(1) is None


def test_streams_beyond_the_limit_are_refused_and_the_session_goes_on() -> None:
    victim = Victim(Limits(max_streams=2))
    victim.receive(Frame.open(1), Frame.open(3), Frame.open(5))
    (refusal,) = victim.answers()
    assert (refusal.stream_id, refusal.reset.code) == (5, Code.LIMIT_EXCEEDED)
    assert victim.session.stream_count == 2
    victim.receive(Frame.reset(1), Frame.open(7))
    assert victim.session.stream(7) is not None


def windows_bytes(victim: Victim) -> int:
    """What is promised to the peer; the rest of the budget that is used is for answers that it has not acknowledged."""
    figures = victim.session.statistics()
    return figures.budget_used_bytes - figures.budget_held_bytes


def test_streams_beyond_the_memory_are_refused() -> None:
    victim = Victim(Limits(session_budget_bytes=10_000, initial_window_bytes=4096, min_window_bytes=4096))
    victim.receive(Frame.open(1), Frame.open(3), Frame.open(5))
    (refusal,) = victim.answers()
    assert (refusal.stream_id, refusal.reset.code) == (5, Code.LIMIT_EXCEEDED)
    assert windows_bytes(victim) == 8192


def test_hundred_thousand_opens_cost_no_more_than_the_limit() -> None:
    victim = Victim()
    refused = 0
    for first in range(1, 200_000, 2000):
        victim.receive(*(Frame.open(one) for one in range(first, first + 2000, 2)))
        refused += len(victim.answers())
    assert victim.session.stream_count == 4096
    assert refused == 100_000 - 4096
    assert victim.session.statistics().budget_used_bytes <= 80 * MIB


def test_open_and_reset_loops_are_slowed_down() -> None:
    victim = Victim()
    accepted = 0
    for first in range(1, 40_000, 2000):
        frames = [frame for one in range(first, first + 2000, 2) for frame in (Frame.open(one), Frame.reset(one))]
        victim.receive(*frames)
        accepted += sum(isinstance(event, ev.StreamOpened) for event in victim.events())
        assert {frame.reset.code for frame in victim.answers()} <= {Code.LIMIT_EXCEEDED}
    assert accepted == 10_000
    assert victim.session.stream_count == 0
    assert windows_bytes(victim) == 0
    victim.now += 0.1
    victim.receive(Frame.open(100_001))
    assert victim.session.stream(100_001) is not None
