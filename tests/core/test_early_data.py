"""The first bytes of a stream that its OPEN brings along (PROTO 5.3)."""

from __future__ import annotations

import pytest

from tests.core.frame_factory import FrameFactory as Frame
from tests.core.frame_factory import Victim
from tests.core.pair import TARGET, Pair
from tunnel.core import events as ev
from tunnel.core.streams.scheduler import HOLD_S
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.errors import Code, LocalProtocolError, OpenRefused, RemoteProtocolError
from tunnel.core.wire.limits import MAX_EARLY_BYTES, Limits

HELLO = b"\x16\x03\x01 hello"


def opening(pair: Pair, data: bytes = HELLO) -> tuple[CoreStream, CoreStream]:
    """The server's stream, and what the agent has of it, not yet answered."""
    local = pair.server.session.open_stream(TARGET, pair.now, deadline_s=10.0, early_data=data)
    pair.transfer()
    remote = pair.agent.session.stream(local.id)
    assert remote is not None
    return local, remote


def test_they_are_there_when_the_stream_is_connected_and_not_before() -> None:
    pair = Pair()
    local, remote = opening(pair)
    assert [type(event) for event in pair.agent.events()] == [ev.StreamOpened]
    pair.agent.session.accept_stream(remote, pair.now, "10.1.0.9:80")
    assert pair.agent.events() == [ev.StreamReadable(remote.id)]
    pair.pass_time(HOLD_S)
    pair.server.session.send_data(local, b" and more", pair.now)
    pair.server.session.send_fin(local, pair.now)
    pair.transfer()
    assert b"".join(pair.agent.session.take(remote)) == HELLO + b" and more"


def test_they_count_for_credit_and_in_the_figures() -> None:
    pair = Pair(agent_limits=Limits(initial_window_bytes=4096, min_window_bytes=4096))
    local, remote = opening(pair, b"x" * MAX_EARLY_BYTES)
    pair.agent.session.accept_stream(remote, pair.now)
    pair.pass_time(HOLD_S)
    pair.server.session.send_data(local, b"y" * 10_000, pair.now)
    pair.transfer()
    assert local.statistics().bytes_sent == remote.statistics().bytes_received == 4096
    assert b"".join(pair.agent.session.take(remote)) == b"x" * 2048 + b"y" * 2048
    pair.agent.session.consumed(remote, 4096, pair.now)
    pair.transfer()
    assert local.statistics().bytes_sent == 8192


def test_a_refused_stream_never_had_any() -> None:
    pair = Pair()
    local, remote = opening(pair)
    pair.agent.session.reset_stream(remote, Code.REFUSED, "no")
    pair.transfer()
    (ended,) = pair.server.events()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, OpenRefused)
    assert pair.agent.session.stream(local.id) is None
    assert remote.receive.queued == 0


def test_accept_goes_with_the_answer_of_the_target() -> None:
    pair = Pair()
    local, remote = opening(pair)
    pair.agent.session.accept_stream(remote, pair.now)
    assert pair.send(pair.agent) == []
    pair.agent.session.send_data(remote, b"welcome", pair.now)
    packets = pair.send(pair.agent)
    assert len(packets) == 1
    pair.deliver(pair.server, packets)
    assert [type(event) for event in pair.server.events()] == [ev.StreamAccepted, ev.StreamReadable]
    assert pair.server.session.take(local) == [b"welcome"]


def test_accept_waits_no_longer_than_a_millisecond() -> None:
    pair = Pair()
    local, remote = opening(pair)
    pair.agent.session.accept_stream(remote, pair.now)
    pair.pass_time(HOLD_S * 0.9)
    assert not local.opened
    pair.pass_time(HOLD_S * 0.2)
    assert local.opened


def test_stream_without_any_is_accepted_at_once() -> None:
    pair = Pair()
    local, remote = opening(pair, b"")
    pair.agent.session.accept_stream(remote, pair.now)
    pair.transfer()
    assert local.opened


def test_accept_that_waits_survives_a_cut() -> None:
    pair = Pair()
    local, remote = opening(pair)
    pair.agent.session.accept_stream(remote, pair.now)
    pair.detach()
    pair.attach()
    pair.pass_time(HOLD_S)
    assert local.opened


def test_they_survive_a_cut_that_takes_the_open_along() -> None:
    pair = Pair()
    local = pair.server.session.open_stream(TARGET, pair.now, deadline_s=10.0, early_data=HELLO)
    pair.send(pair.server)  # and nothing of it arrives
    pair.detach()
    pair.attach()
    pair.transfer()
    remote = pair.agent.session.stream(local.id)
    assert remote is not None
    pair.agent.session.accept_stream(remote, pair.now)
    assert pair.agent.session.take(remote) == [HELLO]


def test_more_than_may_come_is_a_fault_of_whoever_sends_it() -> None:
    pair = Pair()
    with pytest.raises(LocalProtocolError, match="2049 bytes of early data"):
        pair.server.session.open_stream(TARGET, pair.now, deadline_s=10.0, early_data=bytes(MAX_EARLY_BYTES + 1))
    with pytest.raises(RemoteProtocolError, match="OPEN with 2049 bytes, at most 2048"):
        Victim().receive(Frame.open(1, early_data=bytes(MAX_EARLY_BYTES + 1)))
