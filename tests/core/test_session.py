"""tunnel.core.session: the link of a session, its timers, and what it owes its peer (PROTO 7 and 8)."""

from __future__ import annotations

import pytest

from tests.core.frame_factory import FrameFactory as Frame
from tests.core.frame_factory import Victim
from tests.core.pair import TARGET, Pair
from tunnel.core import events as ev
from tunnel.core.link import Link
from tunnel.core.session import Session
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.errors import Code, LocalProtocolError, OpenRefused, RemoteProtocolError, SessionLost
from tunnel.core.wire.limits import MAX_DATA_BYTES, Limits, Timing


def _session(**rest: object) -> Session:
    return Session(session_id=b"s" * 16, dialler=True, now=0.0, **rest)  # type: ignore[arg-type]


def test_new_session_waits_for_its_first_carrier() -> None:
    session = _session()
    assert session.statistics().link is Link.SUSPENDED
    assert session.next_packet(0.0) is None
    assert session.next_timer() == 120.0
    session.attach(1.0)
    assert session.statistics().link is Link.ATTACHED
    assert session.next_timer() == 11.0


def test_new_carrier_fences_the_old() -> None:
    pair = Pair()
    _, remote = pair.open()
    old = pair.agent.session.generation
    late = pair.send(pair.server)
    new = pair.agent.session.attach(pair.now, pair.server.session.last_received)
    assert new == old + 1
    for message in [*late, b"rubbish"]:
        pair.agent.session.receive_message(old, message, pair.now)
    assert not pair.agent.session.detach(old, pair.now)
    assert pair.agent.session.link is Link.ATTACHED
    assert pair.agent.session.detach(new, pair.now)
    assert not pair.agent.session.detach(new, pair.now)
    assert remote.opened


@pytest.mark.parametrize("received", [1, 99])
def test_peer_with_another_memory_of_the_session_cannot_resume(received: int) -> None:
    session = _session()
    assert not session.may_resume(received)
    with pytest.raises(LocalProtocolError, match=f"at packet {received}"):
        session.attach(0.0, received)


def test_closed_session_stays_closed() -> None:
    pair = Pair()
    pair.open()
    session = pair.server.session
    session.close(None)
    session.close(SessionLost("again"))
    ended, closed = pair.server.events()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, SessionLost)
    assert str(ended.error) == "the session was closed"
    assert closed == ev.SessionClosed(None)
    assert session.link is Link.CLOSED
    assert (session.next_packet(pair.now), session.next_timer(), session.stream_count) == (None, None, 0)
    assert not session.may_resume(session.last_received)
    assert not session.detach(session.generation, pair.now)
    session.on_timer(pair.now + 1000.0)
    assert session.events() == []
    with pytest.raises(OpenRefused) as caught:
        session.open_stream(TARGET, pair.now, deadline_s=1.0)
    assert caught.value.code is Code.SESSION_LOST


def test_each_stream_of_a_lost_session_has_an_error_of_its_own() -> None:
    pair = Pair()
    for _ in range(3):
        pair.open()
    pair.agent.session.close(RemoteProtocolError("it lied"))
    *ended, closed = pair.agent.events()
    errors = [event.error for event in ended if isinstance(event, ev.StreamEnded)]
    assert [str(error) for error in errors] == ["it lied"] * 3
    assert len({id(error) for error in errors}) == 3
    assert isinstance(closed, ev.SessionClosed)
    assert isinstance(closed.error, RemoteProtocolError)


def test_resume_window_ends_the_session() -> None:
    pair = Pair(timing=Timing(resume_window_s=30.0))
    pair.detach()
    session = pair.agent.session
    assert session.next_timer() == 130.0
    session.on_timer(129.9)
    assert session.link is Link.SUSPENDED
    session.on_timer(130.0)
    (closed,) = session.events()
    assert isinstance(closed, ev.SessionClosed)
    assert str(closed.error) == "the link did not come back within 30 s"


def test_silent_peer_is_asked_then_given_up() -> None:
    session = _session()
    session.attach(0.0)
    session.on_timer(9.9)
    assert session.next_packet(9.9) is None
    session.on_timer(10.0)
    assert session.events() == [ev.PeerSuspect()]
    message = session.next_packet(10.0)
    assert message is not None
    packet = decode_envelope(message).packet
    assert packet.seq == 0
    assert packet.frames[0].ping.nonce == 1
    session.on_timer(15.0)
    assert session.events() == [ev.CarrierDead(15.0)]
    assert session.link is Link.SUSPENDED
    assert session.next_timer() == 135.0


def test_answered_question_is_a_round_trip() -> None:
    pair = Pair()
    pair.now += 10.0
    pair.agent.session.on_timer(pair.now)
    question = pair.send(pair.agent)
    pair.now += 0.05
    pair.deliver(pair.server, question)
    answer = pair.send(pair.server)
    pair.now += 0.05
    pair.deliver(pair.agent, answer)
    assert pair.agent.session.statistics().pacing.rtt_s == pytest.approx(0.1)
    assert pair.agent.events() == [ev.PeerSuspect()]
    assert pair.agent.session.next_timer() == pytest.approx(pair.now + 10.0)


def test_single_packet_is_acknowledged_within_milliseconds() -> None:
    pair = Pair()
    pair.server.session.open_stream(TARGET, pair.now, deadline_s=10.0)
    pair.deliver(pair.agent, pair.send(pair.server))
    assert pair.send(pair.agent) == []
    due = pair.agent.session.next_timer()
    assert due is not None
    assert due == pytest.approx(pair.now + 0.002)
    pair.now = due
    pair.agent.session.on_timer(pair.now)
    (message,) = pair.send(pair.agent)
    packet = decode_envelope(message).packet
    assert (packet.seq, packet.ack, len(packet.frames)) == (0, 1, 0)
    pair.deliver(pair.server, [message])
    assert pair.server.session.statistics().kept_bytes == 0


def test_acks_ride_on_what_is_sent_anyway() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_data(local, b"ping", pair.now)
    pair.deliver(pair.agent, pair.send(pair.server))
    pair.agent.session.send_data(remote, b"pong", pair.now)
    (message,) = pair.send(pair.agent)
    packet = decode_envelope(message).packet
    assert packet.ack == pair.agent.session.last_received
    assert [frame.data for frame in packet.frames] == [b"pong"]


def test_resends_go_first_and_acks_go_between_them() -> None:
    pair = Pair()
    local, _ = pair.open()
    session = pair.server.session
    session.send_data(local, b"x" * 40_000, pair.now)
    lost = pair.send(pair.server)
    pair.detach()
    session.send_data(local, b"new", pair.now)
    pair.attach()
    again = pair.send(pair.server)
    assert again[: len(lost)] == lost[: len(again)]
    pair.deliver(pair.agent, again)
    pair.transfer()
    remote = pair.agent.session.stream(local.id)
    assert remote is not None
    assert b"".join(pair.agent.session.take(remote)) == b"x" * 40_000 + b"new"


def test_ack_is_sent_though_resends_wait_for_room() -> None:
    pair = Pair()
    local, remote = pair.open()
    for _ in range(30):
        pair.server.session.send_data(local, b"x" * 20_000, pair.now)
        pair.now += 0.01
        pair.transfer()
        pair.agent.session.consumed(remote, sum(map(len, pair.agent.session.take(remote))), pair.now)
    lost = []
    for one in range(40):
        pair.server.session.send_data(local, bytes([one]) * 1400, pair.now)
        lost += pair.send(pair.server)
    pair.detach()
    pair.attach()
    held = pair.send(pair.server)
    assert held == lost[: len(held)]
    assert 0 < len(held) < len(lost) == 40
    pair.agent.session.send_data(remote, b"a", pair.now)
    pair.deliver(pair.server, pair.send(pair.agent))
    pair.now += 0.002
    pair.server.session.on_timer(pair.now)
    (ack,) = pair.send(pair.server)
    assert decode_envelope(ack).packet.seq == 0


def test_limits_of_the_peer_are_kept() -> None:
    pair = Pair(server_limits=Limits(max_in_flight_bytes=1 << 25))
    local, _ = pair.open()
    session = pair.server.session
    session.set_peer_limits(1, 2000, 9000)
    session.send_data(local, b"x" * 200_000, pair.now)
    for packet in pair.transfer():
        assert all(len(frame.data) <= 2000 for frame in packet.frames)
        assert packet.ByteSize() <= 9000
    with pytest.raises(OpenRefused, match="1 streams are open already"):
        session.open_stream(TARGET, pair.now, deadline_s=1.0)


def test_absurd_limits_of_the_peer_are_raised_and_none_leave_ours() -> None:
    pair = Pair()
    session = pair.server.session
    session.set_peer_limits(0, 1, 1)
    local, _ = pair.open()
    session.send_data(local, b"x" * 100_000, pair.now)
    sizes = [len(frame.data) for packet in pair.transfer() for frame in packet.frames if frame.data]
    assert max(sizes) == 1024
    session.set_peer_limits(0, 0, 0)
    session.send_data(local, b"x" * 100_000, pair.now)
    sizes = [len(frame.data) for packet in pair.transfer() for frame in packet.frames if frame.data]
    assert 1024 < max(sizes) <= MAX_DATA_BYTES


def test_going_away_refuses_new_streams_and_keeps_the_old() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.agent.session.go_away(Code.SHUTTING_DOWN, "agent stops", reconnect_after_s=1.5)
    assert pair.agent.session.going_away
    pair.transfer()
    assert pair.server.event() == ev.PeerGoingAway(Code.SHUTTING_DOWN, "agent stops", 1.5)
    for end in (pair.agent, pair.server):
        first, second = (_refusal(end.session) for _ in range(2))
        assert (first.code, str(first)) == (Code.SHUTTING_DOWN, "agent stops")
        assert first is not second
    pair.server.session.send_data(local, b"still here", pair.now)
    pair.transfer()
    assert pair.agent.session.take(remote) == [b"still here"]


def _refusal(session: Session) -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        session.open_stream(TARGET, 100.0, deadline_s=1.0)
    return caught.value


def test_open_that_crossed_a_goaway_is_refused_with_its_reason() -> None:
    victim = Victim()
    victim.session.go_away(Code.SHUTTING_DOWN, "stopping")
    victim.receive(Frame.open(1))
    away, refusal = victim.answers()
    assert away.go_away.text == "stopping"
    assert (refusal.reset.code, refusal.reset.text) == (Code.SHUTTING_DOWN, "stopping")


def test_both_sides_may_go_away_and_one_without_a_reason() -> None:
    victim = Victim()
    victim.receive(Frame.go_away(text=""))
    assert str(_refusal(victim.session)) == "the other side is shutting down"
    victim = Victim()
    victim.session.go_away(Code.SHUTTING_DOWN, "ours")
    victim.receive(Frame.go_away(text="theirs"))
    assert str(_refusal(victim.session)) == "ours"


def test_statistics_say_how_it_stands() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_data(local, b"12345", pair.now)
    pair.transfer()
    figures = pair.server.session.statistics()
    assert (figures.link, figures.streams, figures.generation) == (Link.ATTACHED, 1, 1)
    assert figures.packets_sent == pair.agent.session.last_received
    assert figures.packets_received == pair.server.session.last_received
    assert pair.server.session.memory_bytes == figures.budget_used_bytes
    windows_bytes = figures.budget_used_bytes - figures.budget_held_bytes
    assert windows_bytes == local.statistics().window_bytes == 256 * 1024
    assert figures.kept_bytes < figures.budget_held_bytes
    assert local.statistics().bytes_sent == remote.statistics().bytes_received == 5
    assert remote.statistics().receive_queue_bytes == 5
    assert figures.pacing.window_bytes > 0


def test_stream_that_ended_is_left_alone() -> None:
    pair = Pair()
    local, remote = pair.open()
    session = pair.server.session
    session.reset_stream(local, Code.CONNECTION_RESET, "reset by peer")
    pair.transfer()
    assert pair.server.events() == []
    (ended,) = pair.agent.events()
    assert isinstance(ended, ev.StreamEnded)
    assert str(ended.error) == "reset by peer"
    assert session.send_data(local, b"x", pair.now)
    session.send_fin(local, pair.now)
    session.stop_sending(local, Code.CANCELLED, pair.now)
    session.consumed(local, 5, pair.now)
    session.reset_stream(local, Code.CANCELLED)
    pair.agent.session.accept_stream(remote, pair.now)
    assert session.take(local) == []
    assert pair.transfer() == []
    pair.pass_time(0.01)
    assert [end.session.statistics().budget_used_bytes for end in (pair.agent, pair.server)] == [0, 0]


def test_a_timer_that_nobody_calls_is_seen() -> None:
    session = Session(session_id=bytes(16), dialler=True, now=0.0)
    session.attach(0.0)
    due = session.next_timer()
    assert due is not None
    assert (session.overdue_s(due - 1), session.overdue_s(due + 30)) == (0.0, 30.0)
    session.close(None)
    assert session.overdue_s(1e6) == 0.0
