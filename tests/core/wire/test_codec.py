"""tunnel.core.wire.codec: frames and packets to bytes and back. What it refuses is in test_hostile_packets.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import tunnel_pb2 as pb
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import LARGE_BYTES, MAX_OFFSET, clip_text, decode_envelope, decode_packet, encode_packet
from tunnel.core.wire.errors import Code, LocalProtocolError, RemoteProtocolError
from tunnel.core.wire.limits import MAX_DATA_BYTES, MAX_FRAMES, MAX_MESSAGE_BYTES, MAX_TEXT_BYTES
from tunnel.core.wire.principal import NOBODY, Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, TcpTarget, UnknownTarget

NO_ACK = f.Ack(0, 0, 0)
ids = st.integers(1, MAX_OFFSET - 1)
offsets = st.integers(0, MAX_OFFSET - 1)
words32 = st.integers(0, 0xFFFFFFFF)
codes = st.sampled_from(Code)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=63)
texts = st.text(max_size=200).filter(str.isprintable)
targets = st.builds(TcpTarget, words, st.integers(1, 65535)) | st.builds(ServiceTarget, words)
principals = st.builds(
    Principal,
    kind=st.sampled_from(PrincipalKind),
    name=texts,
    groups=st.lists(texts, max_size=3).map(tuple),
    proof=words,
)
frames = st.one_of(
    st.builds(f.Data, ids, st.binary(min_size=1, max_size=300)),
    st.builds(f.Credit, ids, offsets),
    st.builds(
        f.Open,
        ids,
        targets,
        st.integers(1, 0xFFFFFFFF),
        offsets,
        st.sampled_from(f.TrafficClass),
        st.just(NOBODY) | principals,
        words,
        st.binary(max_size=100),
        agent=st.just("") | words,
        hop=st.integers(0, 9),
    ),
    st.builds(f.Accept, ids, texts, offsets),
    st.builds(f.Fin, ids),
    st.builds(f.Reset, ids, codes, texts),
    st.builds(f.StopSending, ids, codes),
    st.builds(f.Ping, st.integers(0, (1 << 64) - 1)),
    st.builds(f.Pong, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1)),
    st.builds(f.GoAway, codes, texts, words32),
)


def _user(name: str, *, groups: tuple[str, ...] = (), proof: str = "") -> Principal:
    return Principal(kind=PrincipalKind.USER, name=name, groups=groups, proof=proof)


def _round_trip(message: bytes) -> f.Packet:
    return decode_packet(decode_envelope(message).packet)


@given(offsets, offsets, words32, words32, st.lists(frames, max_size=20))
def test_packets_come_back_as_they_were(seq: int, ack: int, delay: int, received: int, packed: list[f.Frame]) -> None:
    told = f.Ack(ack, delay, received)
    assert _round_trip(encode_packet(seq, told, packed)) == f.Packet(seq, told, tuple(packed))


large = st.builds(f.Data, ids, st.integers(LARGE_BYTES - 1, LARGE_BYTES + 1).map(bytes))


@given(offsets, st.lists(frames | large, max_size=8))
def test_large_data_is_encoded_as_protobuf_would(seq: int, packed: list[f.Frame]) -> None:
    message = encode_packet(seq, NO_ACK, packed)
    assert _round_trip(message) == f.Packet(seq, NO_ACK, tuple(packed))
    assert len(message) == pb.Envelope.FromString(message).ByteSize()


@given(st.integers(0, 2000), st.binary(max_size=400), st.lists(frames, min_size=1, max_size=5))
def test_any_cut_or_damage_is_a_protocol_error_or_a_packet(at: int, noise: bytes, packed: list[f.Frame]) -> None:
    message = encode_packet(7, NO_ACK, packed)
    for damaged in (message[: at % len(message)], message[:at] + noise + message[at + len(noise) :], noise):
        try:
            packet = _round_trip(damaged)
        except RemoteProtocolError:
            continue
        assert len(packet.frames) <= MAX_FRAMES


def test_texts_of_ours_are_cut_to_their_bound() -> None:
    long = "é" * 3000
    message = encode_packet(
        1,
        NO_ACK,
        [
            f.Open(1, TcpTarget("h", 1), 1, 0, principal=_user(long, proof=long), trace_id=long),
            f.Accept(2, long, 0),
            f.Reset(1, Code.REFUSED, long),
            f.GoAway(Code.SHUTTING_DOWN, long),
        ],
    )
    opening, accept, reset, away = _round_trip(message).frames
    short = "é" * (MAX_TEXT_BYTES // 2)
    assert isinstance(opening, f.Open)
    assert opening.principal == _user(short, proof="é" * 128)
    assert opening.trace_id == "é" * 32
    assert isinstance(accept, f.Accept)
    assert accept.resolved_address == short
    assert isinstance(reset, f.Reset | f.GoAway)
    assert isinstance(away, f.Reset | f.GoAway)
    assert (reset.text, away.text) == (short, short)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (("g",) * 40, ("g",) * 32),
        (("a" * 2000, "b" * 48, "c"), ("a" * 2000, "b" * 48)),
        (("é" * 1025, "b"), ()),
        (("\udc80",), ("?",)),
    ],
)
def test_groups_beyond_their_bounds_are_left_out(groups: tuple[str, ...], told: tuple[str, ...]) -> None:
    (opening,) = _round_trip(
        encode_packet(1, NO_ACK, [f.Open(1, ServiceTarget("s"), 1, 0, principal=_user("ann", groups=groups))])
    ).frames
    assert isinstance(opening, f.Open)
    assert opening.principal.groups == told


def test_a_principal_in_words_is_what_an_older_peer_reads() -> None:
    frame = f.Open(1, ServiceTarget("s"), 1, 0, principal=_user("ann"), principal_text="user:ann")
    envelope = pb.Envelope.FromString(encode_packet(1, NO_ACK, [frame]))
    opening = envelope.packet.frames[0].open
    assert (opening.principal_text, opening.principal.name) == ("user:ann", "ann")
    opening.ClearField("principal")
    (read,) = decode_packet(envelope.packet).frames
    assert isinstance(read, f.Open)
    assert read.principal == Principal(kind=PrincipalKind.UNKNOWN, name="user:ann")
    opening.ClearField("principal_text")
    (read,) = decode_packet(envelope.packet).frames
    assert isinstance(read, f.Open)
    assert read.principal is NOBODY


def test_a_target_that_is_not_known_cannot_be_sent() -> None:
    with pytest.raises(LocalProtocolError, match="known kinds"):
        encode_packet(1, NO_ACK, [f.Open(1, UnknownTarget(), 1, 0)])


@given(st.text(st.characters(codec="utf-8"), max_size=600))
def test_clipped_text_is_a_prefix_within_the_bound(text: str) -> None:
    clipped = clip_text(text)
    assert text.startswith(clipped)
    assert len(clipped.encode()) <= MAX_TEXT_BYTES
    assert clipped == text or len(clipped.encode()) > MAX_TEXT_BYTES - 4


def test_clipping_survives_what_is_no_unicode() -> None:
    assert clip_text("a\udc80b") == "a?b"


@pytest.mark.parametrize("number", [3, 7, 255])
def test_class_of_a_later_build_is_auto(number: int) -> None:
    envelope = pb.Envelope()
    opening = envelope.packet.frames.add(stream_id=1).open
    opening.service, opening.deadline_ms = "s", 1
    opening.traffic_class = number  # type: ignore[assignment]
    (frame,) = _round_trip(envelope.SerializeToString()).frames
    assert isinstance(frame, f.Open)
    assert frame.traffic_class is f.TrafficClass.AUTO


def test_largest_packet_of_data_fits_a_message() -> None:
    message = encode_packet(
        MAX_OFFSET - 1,
        f.Ack(MAX_OFFSET - 1, 0xFFFFFFFF, 0xFFFFFFFF),
        [f.Data(MAX_OFFSET - 1, b"x" * MAX_DATA_BYTES)] * 8,
    )
    assert len(message) <= MAX_MESSAGE_BYTES
    assert len(_round_trip(message).frames) == 8


def test_message_bound_is_the_callers() -> None:
    assert decode_envelope(b"", 0) == pb.Envelope()
    with pytest.raises(RemoteProtocolError, match="at most 10 are allowed"):
        decode_envelope(bytes(11), 10)
