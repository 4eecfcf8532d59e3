"""tunnel.core.streams.table: opening, answering, ending, deadlines, back-pressure of two sessions (PROTO 5 and 6)."""

from __future__ import annotations

import pytest

from tests.core.pair import TARGET, Pair
from tunnel.core import events as ev
from tunnel.core.session import Session
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.errors import Code, LocalProtocolError, OpenRefused, StreamReset
from tunnel.core.wire.features import FEATURES
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.limits import CHUNK_BYTES, KIB, Limits
from tunnel.core.wire.principal import NOBODY, Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, UnknownTarget

ALICE = Principal(kind=PrincipalKind.USER, name="alice", groups=("ops",), proof="token:9c21")


def test_opening_brings_everything_to_the_other_side() -> None:
    pair = Pair()
    local = pair.server.session.open_stream(
        ServiceTarget("kubelet"),
        pair.now,
        deadline_s=2.0,
        traffic_class=TrafficClass.INTERACTIVE,
        principal=ALICE,
        trace_id="t-1",
    )
    assert local.id == 2
    pair.now += 0.5
    pair.transfer()
    opened = pair.agent.event()
    assert isinstance(opened, ev.StreamOpened)
    assert (opened.target, opened.principal, opened.trace_id) == (ServiceTarget("kubelet"), ALICE, "t-1")
    assert opened.deadline_s == pytest.approx(pair.now + 1.5)
    remote = pair.agent.session.stream(2)
    assert remote is not None
    assert (remote.send.hint, remote.principal, remote.trace_id) == (TrafficClass.INTERACTIVE, ALICE, "t-1")
    pair.agent.session.accept_stream(remote, pair.now, "unix:kubelet")
    pair.transfer()
    assert pair.server.event() == ev.StreamAccepted(2, "unix:kubelet")
    assert local.resolved_address == "unix:kubelet"


@pytest.mark.parametrize(
    ("features", "principal", "words"),
    [
        (FEATURES, ALICE, ""),
        (frozenset[str](), ALICE, "user:alice"),
        (frozenset[str](), NOBODY, ""),
    ],
)
def test_an_older_peer_is_told_in_words_who_asks(features: frozenset[str], principal: Principal, words: str) -> None:
    session = Session(session_id=b"s" * 16, dialler=True, now=0.0, features=features)
    session.attach(0.0)
    session.open_stream(TARGET, 0.0, deadline_s=2.0, principal=principal)
    message = session.next_packet(0.0)
    assert message is not None
    (frame,) = decode_envelope(message).packet.frames
    assert (frame.open.principal.name, frame.open.principal_text) == (principal.name, words)


def test_a_target_that_is_not_known_cannot_be_asked_for() -> None:
    pair = Pair()
    with pytest.raises(LocalProtocolError, match="known kinds"):
        pair.agent.session.open_stream(UnknownTarget(), pair.now, deadline_s=1.0)
    assert pair.agent.session.stream_count == 0


def test_each_side_has_numbers_of_its_own() -> None:
    pair = Pair()
    ids = [pair.open(opener)[0].id for opener in (pair.agent, pair.server, pair.agent, pair.server)]
    assert ids == [1, 2, 3, 4]


def test_refused_opening_ends_with_its_code() -> None:
    pair = Pair()
    local = pair.server.session.open_stream(TARGET, pair.now, deadline_s=2.0)
    pair.transfer()
    remote = pair.agent.session.stream(local.id)
    assert remote is not None
    pair.agent.session.reset_stream(remote, Code.NAME_NOT_FOUND, "db: no such host")
    pair.transfer()
    ended = pair.server.event()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, OpenRefused)
    assert (ended.error.code, str(ended.error)) == (Code.NAME_NOT_FOUND, "db: no such host")


def test_half_close_echo() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_data(local, b"question", pair.now)
    pair.server.session.send_fin(local, pair.now)
    pair.transfer()
    assert pair.agent.events() == [ev.StreamReadable(local.id), ev.StreamFinished(local.id)]
    assert pair.agent.session.take(remote) == [b"question"]
    pair.agent.session.consumed(remote, 8, pair.now)
    pair.agent.session.send_data(remote, b"answer", pair.now)
    pair.agent.session.send_fin(remote, pair.now)
    pair.pass_time(0.01)
    assert pair.server.session.take(local) == [b"answer"]
    pair.server.session.consumed(local, 6, pair.now)
    assert pair.server.events()[-1] == ev.StreamEnded(local.id, None)
    assert pair.agent.events() == [ev.StreamEnded(local.id, None)]


def test_stream_ends_only_when_the_peer_has_everything() -> None:
    pair = Pair()
    local, _remote = pair.open()
    pair.agent.session.send_fin(_remote, pair.now)
    pair.transfer()
    pair.server.events()
    pair.server.session.send_data(local, b"last words", pair.now)
    pair.server.session.send_fin(local, pair.now)
    messages = pair.send(pair.server)
    assert pair.server.events() == []
    pair.deliver(pair.agent, messages)
    pair.pass_time(0.01)
    assert pair.server.events() == [ev.StreamEnded(local.id, None)]


def test_fin_on_a_lost_carrier_is_sent_again_or_known_to_have_arrived() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_fin(local, pair.now)
    pair.agent.session.send_fin(remote, pair.now)
    pair.deliver(pair.agent, pair.send(pair.server))
    pair.send(pair.agent)  # lost
    pair.detach()
    pair.attach()
    pair.pass_time(0.01)
    assert pair.server.events()[-1] == ev.StreamEnded(local.id, None)
    assert pair.agent.events()[-1] == ev.StreamEnded(local.id, None)


def test_reset_forgets_a_fin_that_waits_for_its_ack() -> None:
    pair = Pair()
    local, _ = pair.open()
    pair.server.session.send_fin(local, pair.now)
    pair.deliver(pair.agent, pair.send(pair.server))
    pair.server.session.reset_stream(local, Code.CANCELLED)
    pair.transfer()
    assert pair.server.events() == []


def test_reset_beats_the_ack_of_a_fin_that_crossed_it() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.agent.session.send_fin(remote, pair.now)
    pair.transfer()
    pair.agent.session.reset_stream(remote, Code.CONNECTION_RESET, "gone")
    pair.server.session.send_fin(local, pair.now)
    pair.server.events()
    pair.deliver(pair.agent, pair.send(pair.server))
    pair.deliver(pair.server, pair.send(pair.agent))
    (ended,) = pair.server.events()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, StreamReset)


def test_nobody_reads_any_more() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_data(local, b"x" * 300_000, pair.now)
    pair.transfer()
    pair.agent.session.stop_sending(remote, Code.CANCELLED, pair.now)
    pair.agent.session.stop_sending(remote, Code.CANCELLED, pair.now)
    kinds = [frame.WhichOneof("kind") for packet in pair.transfer() for frame in packet.frames]
    assert kinds == ["stop_sending", "fin"]
    assert pair.agent.session.take(remote) == []
    assert pair.server.session.send_data(local, b"dropped", pair.now)
    assert local.send.queued == 0
    assert ev.StreamFinished(local.id) in pair.agent.events()
    pair.agent.session.send_fin(remote, pair.now)
    pair.pass_time(0.01)
    assert pair.agent.events() == [ev.StreamEnded(local.id, None)]


def test_bytes_that_cross_stop_sending_are_dropped() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.agent.session.stop_sending(remote, Code.CANCELLED, pair.now)
    pair.server.session.send_data(local, b"x" * 5000, pair.now)
    pair.deliver(pair.agent, pair.send(pair.server))
    assert pair.agent.events() == []
    assert remote.receive.queued == 0
    pair.transfer()


def test_stop_sending_crosses_the_end() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_fin(local, pair.now)
    fin = pair.send(pair.server)
    pair.agent.session.stop_sending(remote, Code.CANCELLED, pair.now)
    pair.deliver(pair.server, pair.send(pair.agent))
    pair.deliver(pair.agent, fin)
    pair.transfer()
    pair.agent.session.stop_sending(remote, Code.CANCELLED, pair.now)
    assert pair.transfer() == []


def test_how_many_streams_the_peer_has_open() -> None:
    pair = Pair()
    counts = [(pair.agent.session.peer_stream_count, pair.server.session.peer_stream_count)]
    local, _ = pair.open()
    counts.append((pair.agent.session.peer_stream_count, pair.server.session.peer_stream_count))
    pair.server.session.reset_stream(local, Code.CANCELLED)
    pair.transfer()
    counts.append((pair.agent.session.peer_stream_count, pair.server.session.peer_stream_count))
    assert counts == [(0, 0), (1, 0), (0, 0)]


def test_writer_waits_at_a_full_queue_and_is_told_when_half_is_gone() -> None:
    pair = Pair()
    local, remote = pair.open()
    session = pair.server.session
    assert session.send_data(local, b"x" * 352 * KIB, pair.now)
    assert session.send_room(local) == CHUNK_BYTES, "32 KiB, but no part of a chunk"
    assert not session.send_data(local, b"x" * 96 * KIB, pair.now)
    assert session.send_room(local) < 0
    pair.transfer()
    pair.server.events()
    assert session.send_room(local) < 0
    assert not session.send_data(local, b"x", pair.now), "nobody reads, and more than a little waits for that"
    pair.transfer()
    assert pair.server.events() == []
    pair.agent.session.consumed(remote, sum(map(len, pair.agent.session.take(remote))), pair.now)
    pair.transfer()
    assert pair.server.events() == [ev.StreamWritable(local.id)]


def test_writer_that_waits_is_told_when_nobody_reads_any_more() -> None:
    pair = Pair()
    local, remote = pair.open()
    assert not pair.server.session.send_data(local, b"x" * 600 * KIB, pair.now)
    pair.transfer()
    pair.server.events()
    pair.agent.session.stop_sending(remote, Code.CANCELLED, pair.now)
    pair.transfer()
    assert pair.server.events() == [ev.StreamWritable(local.id)]


def test_streams_that_are_ready_share_what_the_link_takes() -> None:
    limits = Limits(
        send_queue_bytes=1000,
        min_send_queue_bytes=100,
        session_send_queue_bytes=5000,
        min_session_send_queue_bytes=5000,
    )
    pair = Pair(server_limits=limits)
    session = pair.server.session
    streams = [pair.open()[0] for _ in range(100)]
    assert session.send_data(streams[0], b"x" * 999, pair.now)
    assert session.send_room(streams[1]) == 1000, "those that say nothing take nothing"
    for stream in streams[1:9]:
        session.send_data(stream, b"x" * 10, pair.now)
    assert not session.send_data(streams[0], b"x", pair.now)
    for stream in streams[9:]:
        session.send_data(stream, b"x", pair.now)
    assert session.send_data(streams[50], b"x" * 98, pair.now)
    assert not session.send_data(streams[50], b"x", pair.now)
    session.reset_stream(streams[50], Code.CANCELLED)
    assert session.send_room(streams[50]) == 1000, "what is written to it is dropped"


def test_openings_end_at_their_deadlines_in_order() -> None:
    pair = Pair()
    session = pair.server.session
    late = session.open_stream(TARGET, pair.now, deadline_s=3.0)
    soon = session.open_stream(TARGET, pair.now, deadline_s=1.0)
    answered = session.open_stream(TARGET, pair.now, deadline_s=0.5)
    pair.transfer()
    remote = pair.agent.session.stream(answered.id)
    assert remote is not None
    pair.agent.session.accept_stream(remote, pair.now)
    pair.pass_time(0.25)
    pair.server.events()
    assert session.next_timer() == pytest.approx(pair.now + 0.75)
    pair.pass_time(1.75)
    ended = pair.server.event()
    assert isinstance(ended, ev.StreamEnded)
    assert isinstance(ended.error, OpenRefused)
    assert (ended.stream_id, ended.error.code) == (soon.id, Code.DEADLINE)
    assert pair.agent.session.stream(soon.id) is None
    assert session.next_timer() == pytest.approx(pair.now + 1.0)
    assert session.stream(late.id) is late


def test_deadline_beyond_its_field_and_one_that_is_over() -> None:
    pair = Pair()
    for deadline_s in (1e9, float("inf"), 0.0, -5.0):
        pair.server.session.open_stream(TARGET, pair.now, deadline_s=deadline_s)
    frames = [frame.open.deadline_ms for packet in pair.transfer() for frame in packet.frames]
    assert frames == [0xFFFFFFFF, 0xFFFFFFFF, 1, 1]


def test_opening_given_up_before_it_was_sent_leaves_no_trace() -> None:
    pair = Pair()
    session = pair.server.session
    kept = session.open_stream(TARGET, pair.now, deadline_s=9.0)
    given_up = session.open_stream(TARGET, pair.now, deadline_s=9.0)
    session.reset_stream(given_up, Code.CANCELLED)
    opens = [frame.stream_id for packet in pair.transfer() for frame in packet.frames]
    assert opens == [kept.id]


def test_thousands_of_openings_end_together_in_a_moment() -> None:
    pair = Pair()
    pair.detach()
    for _ in range(4096):
        pair.server.session.open_stream(TARGET, pair.now, deadline_s=1.0)
    pair.now += 1.0
    pair.server.session.on_timer(pair.now)
    ended = pair.server.events()
    codes = {event.error.code for event in ended if isinstance(event, ev.StreamEnded) and event.error is not None}
    assert (len(ended), codes) == (4096, {Code.AGENT_AWAY})
    pair.attach()
    assert pair.transfer() == []


def test_own_streams_are_limited_by_the_peer_and_by_memory() -> None:
    pair = Pair(server_limits=Limits(max_streams=2))
    pair.open()
    pair.open()
    pair.open(pair.agent)
    with pytest.raises(OpenRefused, match="2 streams are open already") as caught:
        pair.open()
    assert caught.value.code is Code.LIMIT_EXCEEDED

    pair = Pair(server_limits=Limits(session_budget_bytes=0))
    with pytest.raises(OpenRefused, match="no memory") as caught:
        pair.open()
    assert caught.value.code is Code.LIMIT_EXCEEDED


def test_our_own_faults_are_told_apart() -> None:
    pair = Pair()
    opening = pair.server.session.open_stream(TARGET, pair.now, deadline_s=9.0)
    pair.transfer()
    asked = pair.agent.session.stream(opening.id)
    assert asked is not None
    for session, stream in ((pair.server.session, opening), (pair.agent.session, asked)):
        with pytest.raises(LocalProtocolError):
            session.send_data(stream, b"x", pair.now)
        with pytest.raises(LocalProtocolError):
            session.send_fin(stream, pair.now)
        with pytest.raises(LocalProtocolError):
            session.stop_sending(stream, Code.CANCELLED, pair.now)
    with pytest.raises(LocalProtocolError, match="opened by this side"):
        pair.server.session.accept_stream(opening, pair.now)
    pair.agent.session.accept_stream(asked, pair.now)
    with pytest.raises(LocalProtocolError):
        pair.agent.session.accept_stream(asked, pair.now)


def test_credit_is_not_given_for_a_direction_that_ended() -> None:
    pair = Pair()
    local, remote = pair.open()
    pair.server.session.send_data(local, b"x" * 200 * KIB, pair.now)
    pair.server.session.send_fin(local, pair.now)
    pair.transfer()
    chunks = pair.agent.session.take(remote)
    pair.agent.session.consumed(remote, sum(map(len, chunks)), pair.now)
    assert not [frame for packet in pair.transfer() for frame in packet.frames if frame.HasField("credit")]
