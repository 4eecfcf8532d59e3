"""tunnel.core.wire.shape: what a message costs to parse is bounded before it is parsed (PROTO 2.6)."""

from __future__ import annotations

import pytest

from protos import tunnel_pb2 as pb
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_envelope, decode_packet, encode_packet
from tunnel.core.wire.errors import RemoteProtocolError
from tunnel.core.wire.limits import KIB, MAX_DATA_BYTES, MAX_FRAMES, MIB
from tunnel.core.wire.shape import MAX_BESIDE_BYTES, UNLOOKED_BYTES, check_shape

ACK = f.Ack(2**60, 2**31, 2**31)


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def field(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + varint(len(content)) + content


def packet(content: bytes, head: bytes = b"\x08\x01\x10\x01") -> bytes:
    return field(0x0A, head + content)


def data(size_bytes: int, stream_id: int = 7) -> bytes:
    return field(0x22, b"\x08" + varint(stream_id) + field(0x12, bytes(size_bytes)))


TINY = b"\x1a\x00" * (512 * KIB - 100)
TOO_MUCH = {
    "empty frames": packet(b"\x22\x00" * (512 * KIB - 100)),
    "frames of one number": packet(b"\x22\x02\x18\x01" * (MAX_FRAMES + 1)),
    "groups of one principal": packet(field(0x22, b"\x08\x01" + field(0x22, field(0x4A, TINY)))),
    "kinds that take turns in one frame": packet(field(0x22, b"\x22\x00\x2a\x00" * (200 * KIB))),
    "fields that no build knows": packet(b"\x7a\x00" * (40 * KIB)),
    "numbers of the packet, over and over": packet(b"\x08\x01" * (40 * KIB)),
    "data behind too many numbers": packet((b"\x08\x01" * 16 + data(1)) * 20 + data(MAX_DATA_BYTES) * 2),
    "packets in a packet's place": b"\x0a\x00" * (512 * KIB),
    "another handshake": field(0x12, b"\x4a\x00" * (500 * KIB)),
    "frames behind the end of the packet": b"\x0a\x00" + data(MAX_DATA_BYTES) * 3,
    "data that is longer than its frame": packet(
        field(0x22, b"\x08\x01\x12" + varint(70 * KIB) + bytes(90)) + b"\x22\x02\x2a\x00" * 4000 + TINY
    ),
    "no stream's data": packet(field(0x22, b"\x0a" + varint(80 * KIB) + bytes(80 * KIB))),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_message_of_too_many_parts_is_a_fault_before_it_is_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.core.wire.codec.pb", None)  # nothing is parsed
    with pytest.raises(RemoteProtocolError, match="more than"):
        decode_envelope(TOO_MUCH[name][:MIB])


def test_frames_behind_what_no_build_knows_are_counted_when_they_are_parsed() -> None:
    message = packet(b"\x7a\x00" + b"\x22\x00" * (MAX_FRAMES + 1))
    check_shape(message)
    with pytest.raises(RemoteProtocolError, match=f"packet of {MAX_FRAMES + 1} frames"):
        decode_packet(decode_envelope(message).packet)


def test_what_breaks_off_is_left_to_the_parser() -> None:
    for message in (b"\x0a" + b"\xff" * 9000, packet(b"\x22\x02\x2a\x00" * 3000 + b"\x22\xff")):
        with pytest.raises(RemoteProtocolError, match="not an Envelope"):
            decode_envelope(message)


def test_as_much_data_as_fits_and_as_much_beside() -> None:
    frames: list[f.Frame] = [f.Data(2**61, bytes(MAX_DATA_BYTES)) for _ in range(14)]
    frames += [f.Reset(2**61, 2, "x" * 1000) for _ in range(60)]  # type: ignore[arg-type]
    message = encode_packet(2**61, ACK, frames)
    assert len(message) > 14 * MAX_DATA_BYTES + MAX_BESIDE_BYTES - 4 * KIB
    assert len(decode_envelope(message).packet.frames) == 74


def test_data_alone_and_data_without_a_stream_count_as_data() -> None:
    check_shape(packet(data(MAX_DATA_BYTES) + field(0x22, field(0x12, bytes(MAX_DATA_BYTES)))))


def test_a_field_of_a_later_build_is_skipped_as_long_as_it_is_short() -> None:
    message = packet(data(UNLOOKED_BYTES) + field(0x7A, bytes(60 * KIB)))
    assert len(decode_envelope(message).packet.frames) == 1
    assert pb.Envelope.FromString(message).packet.seq == 1
