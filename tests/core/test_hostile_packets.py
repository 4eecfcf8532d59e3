"""A peer that breaks the rules of messages and packets, and one that only knows more than we do (PROTO 2 to 4)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from protos import tunnel_pb2 as pb
from tests.core.frame_factory import FrameFactory as Frame
from tests.core.frame_factory import Victim
from tunnel.core import events as ev
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionRefused
from tunnel.core.wire.limits import MAX_FRAMES, MAX_MESSAGE_BYTES, Limits
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, TcpTarget, UnknownTarget


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_message_beyond_the_limit_is_not_even_parsed() -> None:
    victim = Victim()
    with pytest.raises(RemoteProtocolError, match="at most 1048576"):
        victim.receive_message(b"\xff" * (MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize(
    "message",
    [b"\xff", b"\x0a\x05abc", _field(1, _field(4, b"\x08")), _field(1, b"\x23" * 200), b"\x0b" * 300],
    ids=["tag", "short", "truncated frame", "groups", "deep groups"],
)
def test_rubbish_is_no_envelope(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not an Envelope"):
        Victim().receive_message(message)


def test_text_that_is_not_utf8_is_no_envelope() -> None:
    reset = _field(7, _field(2, b"\xff\xfe"))
    with pytest.raises(RemoteProtocolError, match="not an Envelope"):
        Victim().receive_message(_field(1, b"\x08\x01" + _field(4, b"\x08\x01" + reset)))


@pytest.mark.parametrize("body", [pb.Envelope(hello=pb.Hello()), pb.Envelope(welcome=pb.Welcome())])
def test_second_handshake_is_a_fault(body: pb.Envelope) -> None:
    with pytest.raises(RemoteProtocolError, match="second handshake"):
        Victim().receive_message(body.SerializeToString())


def test_refusal_ends_a_running_session() -> None:
    refusal = pb.Envelope(refusal=pb.Refusal(code=3, text="too much", retry_after_ms=1500))
    with pytest.raises(SessionRefused) as caught:
        Victim().receive_message(refusal.SerializeToString())
    assert (caught.value.code, caught.value.text, caught.value.retry_after_s) == (Code.FLOW_CONTROL, "too much", 1.5)


def test_unknown_bodies_frames_and_fields_are_skipped() -> None:
    victim = Victim()
    stream = victim.accepted()
    unknown = _field(900, b"later")
    victim.receive_message(b"")
    victim.receive_message(unknown)
    frames = [
        Frame.data(stream.id, b"a").SerializeToString() + unknown,
        b"\x08\x01" + unknown,
        b"",
        Frame.data(stream.id, b"b").SerializeToString(),
    ]
    packet = b"\x08\x02" + unknown + b"".join(_field(4, frame) for frame in frames)
    victim.receive_message(_field(1, packet) + unknown)
    assert victim.session.take(stream) == [b"a", b"b"]


def test_unknown_kind_of_target_is_of_a_type_of_its_own() -> None:
    victim = Victim()
    frame = Frame.open(1)
    frame.open.ClearField("target")
    victim.receive(frame)
    opened = victim.events()[0]
    assert isinstance(opened, ev.StreamOpened)
    assert opened.target == UnknownTarget()
    victim.receive(pb.Frame(stream_id=3, open=pb.Open(service="unknown", deadline_ms=1)))
    assert [event.target for event in victim.events() if isinstance(event, ev.StreamOpened)] == [
        ServiceTarget("unknown")
    ]


def test_stream_forwarded_once_too_often_is_refused_and_the_session_goes_on() -> None:
    victim = Victim()
    victim.receive(Frame.open(1, hop=2), Frame.open(3, hop=1, agent="box-8"))
    (answer,) = victim.answers()
    assert (answer.stream_id, answer.reset.code) == (1, Code.UNREACHABLE)
    turned_down, opened = victim.events()
    assert isinstance(turned_down, ev.OpenTurnedDown)
    assert turned_down.refusal.code is Code.UNREACHABLE
    assert isinstance(opened, ev.StreamOpened)
    assert (opened.stream_id, opened.agent) == (3, "box-8")


def test_principal_of_a_kind_that_is_not_known() -> None:
    victim = Victim()
    frame = Frame.open(1)
    frame.open.principal.kind, frame.open.principal.name = 77, "ann"  # type: ignore[assignment]
    victim.receive(frame)
    (opened,) = victim.events()
    assert isinstance(opened, ev.StreamOpened)
    assert opened.principal == Principal(kind=PrincipalKind.UNKNOWN, name="ann")


def test_unknown_codes_and_classes_have_a_meaning() -> None:
    victim = Victim()
    victim.receive(Frame.open(1, traffic_class=77), Frame.go_away(code=4711))
    stream = victim.session.stream(1)
    assert stream is not None
    assert stream.send.hint == 0
    away = victim.events()[1]
    assert isinstance(away, ev.PeerGoingAway)
    assert away.code is Code.INTERNAL


def _open(**fields: object) -> pb.Frame:
    return pb.Frame(stream_id=3, open=pb.Open(service="s", deadline_ms=1, **fields))  # type: ignore[arg-type]


BOUNDS: dict[str, pb.Frame] = {
    "empty DATA": Frame.data(1, b""),
    "DATA too long": Frame.data(1, b"x" * 65537),
    "OPEN without deadline": Frame.open(3, deadline_ms=0),
    "OPEN without host": Frame.open(3, host=""),
    "OPEN with a long host": Frame.open(3, host="h" * 254),
    "OPEN with a line break": Frame.open(3, host="h\r\nX: y"),
    "OPEN with a NUL": Frame.open(3, host="h\0"),
    "OPEN with a blank": Frame.open(3, host="a b"),
    "OPEN with letters outside ASCII": Frame.open(3, host="hé"),
    "OPEN with port 0": Frame.open(3, port=0),
    "OPEN with port 65536": Frame.open(3, port=65536),
    "OPEN with a long principal": _open(principal=pb.Principal(name="p" * 1025)),
    "OPEN with a principal of long letters": _open(principal=pb.Principal(name="é" * 513)),
    "OPEN with a long principal in words": Frame.open(3, principal_text="p" * 1025),
    "OPEN with a long proof": _open(principal=pb.Principal(proof="p" * 257)),
    "OPEN with many groups": _open(principal=pb.Principal(groups=["g"] * 33)),
    "OPEN with long groups": _open(principal=pb.Principal(groups=["g" * 1024, "g" * 1025])),
    "OPEN with groups of long letters": _open(principal=pb.Principal(groups=["é" * 512, "é" * 513])),
    "OPEN with a long trace id": Frame.open(3, trace_id="t" * 65),
    "OPEN for a long agent": Frame.open(3, agent="a" * 64),
    "OPEN for an agent with a blank": Frame.open(3, agent="a b"),
    "OPEN with an empty service": pb.Frame(stream_id=3, open=pb.Open(service="", deadline_ms=1)),
    "OPEN with a long service": pb.Frame(stream_id=3, open=pb.Open(service="s" * 64, deadline_ms=1)),
    "OPEN with a blank in the service": pb.Frame(stream_id=3, open=pb.Open(service="a b", deadline_ms=1)),
    "ACCEPT with a long address": Frame.accept(2, resolved_address="a" * 1025),
    "RESET with a long text": Frame.reset(1, text="t" * 1025),
    "GOAWAY with a long text": Frame.go_away(text="t" * 1025),
    "credit of 2^62": Frame.credit(1, 1 << 62),
    "stream 2^62": Frame.fin(1 << 62),
}


@pytest.mark.parametrize("frame", BOUNDS.values(), ids=BOUNDS)
def test_what_is_out_of_bounds_is_a_fault(frame: pb.Frame) -> None:
    victim = Victim()
    victim.accepted(1)
    before = victim.session.stream_count
    with pytest.raises(RemoteProtocolError):
        victim.receive(frame)
    assert victim.session.stream_count == before


def test_bounds_themselves_are_allowed() -> None:
    victim = Victim()
    stream = victim.accepted(1)
    victim.receive(
        Frame.data(1, b"x" * 65536),
        Frame.open(3, host="h" * 253, port=65535, principal_text="é" * 512, trace_id="t" * 64, agent="a" * 63),
        pb.Frame(stream_id=5, open=pb.Open(service="s" * 63, deadline_ms=1)),
    )
    assert victim.session.take(stream) == [b"x" * 65536]
    targets = [event.target for event in victim.events() if isinstance(event, ev.StreamOpened)]
    assert targets == [TcpTarget("h" * 253, 65535), ServiceTarget("s" * 63)]


def test_texts_of_the_peer_hold_no_line_breaks_or_escapes() -> None:
    victim = Victim()
    victim.receive(Frame.open(1, principal_text="eve\r\nX: y\x1b[2J"), Frame.reset(1, text="bye\nnow"))
    opened, ended = victim.events()
    assert isinstance(opened, ev.StreamOpened)
    assert opened.principal == Principal(kind=PrincipalKind.UNKNOWN, name="eve??X: y?")
    assert isinstance(ended, ev.StreamEnded)
    assert str(ended.error) == "bye?now"


def test_too_many_frames_in_a_packet_are_a_fault() -> None:
    victim = Victim()
    victim.receive(*[pb.Frame()] * MAX_FRAMES)
    with pytest.raises(RemoteProtocolError, match=f"more than {MAX_FRAMES} frames"):
        victim.receive(*[pb.Frame()] * (MAX_FRAMES + 1))


@pytest.mark.parametrize("seq", [0, 1, 2, 4, (1 << 62) - 1, 1 << 62, (1 << 64) - 1])
def test_packet_out_of_order_is_a_fault(seq: int) -> None:
    victim = Victim()
    stream = victim.accepted()
    assert victim.session.last_received == 1
    victim.receive(Frame.data(stream.id, b"a"), seq=2)
    with pytest.raises(RemoteProtocolError):
        victim.receive(Frame.data(stream.id, b"b"), seq=seq)
    assert victim.session.take(stream) == [b"a"]
    assert victim.session.last_received == 2


def test_replayed_packet_changes_nothing() -> None:
    victim = Victim()
    stream = victim.accepted()
    victim.receive(Frame.data(stream.id, b"once"), seq=2)
    with pytest.raises(RemoteProtocolError, match="packet 2 after 2"):
        victim.receive(Frame.data(stream.id, b"once"), seq=2)
    assert victim.session.take(stream) == [b"once"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Frame.open(3),
        lambda: Frame.data(1, b"x"),
        lambda: Frame.credit(1, 1 << 20),
        lambda: Frame.fin(1),
        lambda: Frame.reset(1),
        lambda: Frame.stop_sending(1),
        Frame.go_away,
    ],
)
def test_only_pings_travel_without_a_number(make: Callable[[], pb.Frame]) -> None:
    victim = Victim()
    victim.accepted(1)
    victim.receive(Frame.ping(1), Frame.pong(1), seq=0)
    with pytest.raises(RemoteProtocolError, match="unsequenced"):
        victim.receive(make(), seq=0)


@pytest.mark.parametrize("ack", [2, 100, (1 << 62) - 1, 1 << 62])
def test_ack_for_what_was_never_sent_is_a_fault(ack: int) -> None:
    victim = Victim()
    victim.opening()
    victim.receive(ack=1)
    with pytest.raises(RemoteProtocolError):
        victim.receive(ack=ack)


def test_old_acks_are_ignored() -> None:
    victim = Victim()
    victim.opening()
    victim.receive(ack=1)
    victim.receive(ack=0)
    assert victim.session.statistics().kept_bytes == 0


def test_any_ack_delay_is_survived() -> None:
    victim = Victim()
    victim.opening()
    victim.now += 0.01
    victim.receive(ack=1, ack_delay_us=0xFFFFFFFF)
    assert victim.session.statistics().pacing.rtt_s > 0


def test_ping_flood_is_answered_once_for_what_was_sent_together() -> None:
    victim = Victim()
    victim.receive(*(Frame.ping(nonce) for nonce in range(MAX_FRAMES)), seq=0)
    (pong,) = victim.answers()
    assert pong.pong.nonce == MAX_FRAMES - 1
    assert victim.answers() == []


def test_pong_that_nobody_asked_for_is_ignored() -> None:
    victim = Victim()
    victim.receive(Frame.pong(12345), seq=0)
    assert victim.session.statistics().pacing.rtt_s == 0.0


def test_farewells_are_told_once() -> None:
    victim = Victim()
    victim.receive(*(Frame.go_away(text=f"farewell {number}", reconnect_after_ms=1000) for number in range(1000)))
    victim.receive(Frame.go_away(text="and again"))
    assert victim.events() == [ev.PeerGoingAway(Code.SHUTTING_DOWN, "farewell 0", 1.0)]


def test_peer_that_reads_no_answers_is_cut_off() -> None:
    victim = Victim(Limits(max_streams=0))

    def flood() -> None:
        for first in range(1, 1 << 20, 2000):
            victim.receive(*(Frame.open(one) for one in range(first, first + 2000, 2)))

    with pytest.raises(RemoteProtocolError, match="not read") as caught:
        flood()
    assert caught.value.code is Code.LIMIT_EXCEEDED
    assert len(victim.answers()) == 18_000


def test_peer_that_acknowledges_nothing_is_cut_off_before_it_costs_memory() -> None:
    victim = Victim(Limits(max_streams=0, max_in_flight_bytes=256 * 1024))

    def flood() -> None:
        for first in range(1, 1 << 20, 2000):
            victim.receive(*(Frame.open(one) for one in range(first, first + 2000, 2)))
            while victim.session.next_packet(victim.now) is not None:
                assert victim.session.statistics().kept_bytes <= 256 * 1024 * 1.25 + 64 * 1024

    with pytest.raises(RemoteProtocolError) as caught:
        flood()
    assert caught.value.code is Code.LIMIT_EXCEEDED


def test_peer_that_acknowledges_nothing_of_many_small_packets_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.core.egress.MAX_UNACKED_PACKETS", 100)
    victim = Victim(Limits(max_streams=0))
    sent = 0
    for one in range(1, 401, 2):
        victim.receive(Frame.open(one))
        sent += len(victim.answers())
    assert sent == 100
    victim.receive(ack=100)
    assert len(victim.answers()) == 100


def test_largest_hostile_message_costs_bounded_memory() -> None:
    message = _field(1, b"\x22\x00" * (MAX_MESSAGE_BYTES // 2 - 8))
    victim = Victim()
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="frames"):
            victim.receive_message(message)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_MESSAGE_BYTES
    finally:
        tracemalloc.stop()


def test_messages_after_the_end_are_ignored() -> None:
    victim = Victim()
    victim.session.close(None)
    victim.receive_message(b"\xff")
    assert decode_envelope(b"").WhichOneof("body") is None
