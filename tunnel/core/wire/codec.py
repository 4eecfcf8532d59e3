"""Turns packets into protobuf bytes and back. Every bound of PROTO 2 is checked here, before anything is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

from google.protobuf.message import DecodeError

from protos import tunnel_pb2 as pb
from tunnel.core.wire import frames as f
from tunnel.core.wire.errors import Code, LocalProtocolError, RemoteProtocolError
from tunnel.core.wire.limits import (
    MAX_DATA_BYTES,
    MAX_EARLY_BYTES,
    MAX_FRAMES,
    MAX_GROUPS,
    MAX_GROUPS_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PROOF_BYTES,
    MAX_TEXT_BYTES,
    MAX_TRACE_ID_BYTES,
)
from tunnel.core.wire.names import MAX_NAME_BYTES
from tunnel.core.wire.principal import NOBODY, Principal, PrincipalKind
from tunnel.core.wire.shape import UNLOOKED_BYTES, check_shape
from tunnel.core.wire.spoken import printable
from tunnel.core.wire.target import MAX_HOST_BYTES, MAX_SERVICE_BYTES, ServiceTarget, Target, TcpTarget, UnknownTarget

MAX_OFFSET = 1 << 62
"""Stream offsets and sequence numbers stay below this: sums of two of them still fit 64 bits."""

FRAME_OVERHEAD_BYTES = 24
"""The most bytes that a DATA frame adds to its data: tags and varints of Frame, stream id and data."""
LARGE_BYTES = 4096
"""DATA of at least so many bytes goes into a packet as it is: protobuf would copy it into a message, and out of it."""

_PACKET_TAG = bytes((pb.Envelope.PACKET_FIELD_NUMBER << 3 | 2,))
_FRAME_TAG = bytes((pb.Packet.FRAMES_FIELD_NUMBER << 3 | 2,))
_STREAM_ID_TAG = bytes((pb.Frame.STREAM_ID_FIELD_NUMBER << 3,))
_DATA_TAG = bytes((pb.Frame.DATA_FIELD_NUMBER << 3 | 2,))


def encode_packet(seq: int, ack: f.Ack, frames: Sequence[f.Frame]) -> bytes:
    """Returns one serialized Envelope that holds a Packet.

    Parts of a protobuf message that stand one behind the other form the message. So protobuf serializes only what lies
    between frames of large DATA, and the DATA itself is joined in between.

    Raises:
        LocalProtocolError: an OPEN has a target of a kind that this build does not know.
    """
    parts: list[bytes] = []
    envelope = pb.Envelope()
    packet = envelope.packet
    packet.seq = seq
    packet.ack = ack.seq
    packet.ack_delay_us = ack.delay_us
    packet.ack_received_us = ack.received_us
    for frame in frames:
        if type(frame) is not f.Data:
            _ENCODERS[type(frame)](packet.frames.add(), frame)
        elif len(frame.data) < LARGE_BYTES:
            packet.frames.add(stream_id=frame.stream_id, data=frame.data)
        else:
            parts += packet.SerializeToString(), _data_head(frame.stream_id, len(frame.data)), frame.data
            packet.Clear()
    if not parts:
        return envelope.SerializeToString()
    parts.append(packet.SerializeToString())
    return b"".join((_PACKET_TAG, _varint(sum(map(len, parts))), *parts))


def decode_envelope(message: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> pb.Envelope:
    """Parses one message of the carrier and returns its Envelope.

    Raises:
        RemoteProtocolError: it is too long, has too many parts, or is no Envelope.
    """
    if len(message) > max_bytes:
        raise RemoteProtocolError(f"message of {len(message)} bytes, at most {max_bytes} are allowed")
    if len(message) > UNLOOKED_BYTES:
        check_shape(message)
    try:
        return pb.Envelope.FromString(message)
    except DecodeError as error:
        raise RemoteProtocolError("message is not an Envelope") from error


def decode_packet(packet: pb.Packet) -> f.Packet:
    """Checks a parsed packet and returns it as frames; frames of unknown kind are left out (PROTO 2.3).

    Raises:
        RemoteProtocolError: a bound of PROTO 2 is broken.
    """
    if len(packet.frames) > MAX_FRAMES:
        raise RemoteProtocolError(f"packet of {len(packet.frames)} frames, at most {MAX_FRAMES} are allowed")
    if packet.seq >= MAX_OFFSET or packet.ack >= MAX_OFFSET:
        raise RemoteProtocolError("sequence number out of range")
    frames: list[f.Frame] = []
    for frame in packet.frames:
        kind = frame.WhichOneof("kind")
        if kind is not None:
            frames.append(_DECODERS[kind](frame))
    return f.Packet(packet.seq, f.Ack(packet.ack, packet.ack_delay_us, packet.ack_received_us), tuple(frames))


def clip_text(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Returns a text cut to the bound of PROTO 2.5, or to another one, without breaking a character."""
    if len(text) <= max_bytes and text.isascii():
        return text
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def is_word(text: str) -> bool:
    """Returns whether a text is what PROTO 2.7 asks of names: printable ASCII without blanks, and not empty."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


# Internal - encoders


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@functools.lru_cache(maxsize=256)
def _data_head(stream_id: int, size: int) -> bytes:
    """Returns a DATA frame up to its data.

    It is cached, since the frames of one long copy are nearly all of one size.
    """
    inner = _STREAM_ID_TAG + _varint(stream_id) + _DATA_TAG + _varint(size)
    return _FRAME_TAG + _varint(len(inner) + size) + inner


def _encode_credit(frame: pb.Frame, credit: f.Credit) -> None:
    frame.stream_id = credit.stream_id
    frame.credit = credit.limit


def _encode_open(frame: pb.Frame, opening: f.Open) -> None:
    frame.stream_id = opening.stream_id
    message = frame.open
    match opening.target:
        case TcpTarget(host, port):
            message.tcp.host = host
            message.tcp.port = port
        case ServiceTarget(name):
            message.service = name
        case _:  # the stream table lets none through
            raise LocalProtocolError("a stream can be opened to known kinds of target only")
    message.deadline_ms = opening.deadline_ms
    message.traffic_class = cast("pb.TrafficClass", int(opening.traffic_class))
    message.trace_id = clip_text(opening.trace_id, MAX_TRACE_ID_BYTES)
    message.credit = opening.credit
    message.early_data = opening.early_data
    if opening.agent:
        message.agent = opening.agent
    if opening.hop:
        message.hop = opening.hop
    if opening.principal is not NOBODY:
        _encode_principal(message.principal, opening.principal)
        if opening.principal_text:
            message.principal_text = clip_text(opening.principal_text)


def _encode_principal(message: pb.Principal, principal: Principal) -> None:
    """Groups beyond the bounds are left out (PROTO 5.9): a group can only allow more."""
    message.kind = cast("pb.PrincipalKind", int(principal.kind))
    message.name = clip_text(principal.name)
    message.proof = clip_text(principal.proof, MAX_PROOF_BYTES)
    room = MAX_GROUPS_BYTES
    for group in principal.groups[:MAX_GROUPS]:
        room -= len(group.encode("utf-8", "replace"))
        if room < 0:
            return
        message.groups.append(clip_text(group, MAX_GROUPS_BYTES))


def _encode_accept(frame: pb.Frame, accept: f.Accept) -> None:
    frame.stream_id = accept.stream_id
    frame.accept.resolved_address = clip_text(accept.resolved_address)
    frame.accept.credit = accept.credit


def _encode_fin(frame: pb.Frame, fin: f.Fin) -> None:
    frame.stream_id = fin.stream_id
    frame.fin.SetInParent()


def _encode_reset(frame: pb.Frame, reset: f.Reset) -> None:
    frame.stream_id = reset.stream_id
    frame.reset.SetInParent()
    frame.reset.code = reset.code
    frame.reset.text = clip_text(reset.text)


def _encode_stop_sending(frame: pb.Frame, stop: f.StopSending) -> None:
    frame.stream_id = stop.stream_id
    frame.stop_sending.SetInParent()
    frame.stop_sending.code = stop.code


def _encode_ping(frame: pb.Frame, ping: f.Ping) -> None:
    frame.ping.SetInParent()
    frame.ping.nonce = ping.nonce


def _encode_pong(frame: pb.Frame, pong: f.Pong) -> None:
    frame.pong.SetInParent()
    frame.pong.nonce = pong.nonce
    frame.pong.idle_silence_ms = pong.idle_silence_ms


def _encode_go_away(frame: pb.Frame, go_away: f.GoAway) -> None:
    frame.go_away.SetInParent()
    frame.go_away.code = go_away.code
    frame.go_away.text = clip_text(go_away.text)
    frame.go_away.reconnect_after_ms = go_away.reconnect_after_ms


_ENCODERS: dict[type, Callable[[pb.Frame, Any], None]] = {
    f.Credit: _encode_credit,
    f.Open: _encode_open,
    f.Accept: _encode_accept,
    f.Fin: _encode_fin,
    f.Reset: _encode_reset,
    f.StopSending: _encode_stop_sending,
    f.Ping: _encode_ping,
    f.Pong: _encode_pong,
    f.GoAway: _encode_go_away,
}

# Internal - decoders


def _text(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    if len(text) > max_bytes or (not text.isascii() and len(text.encode()) > max_bytes):
        raise RemoteProtocolError(f"text of more than {max_bytes} bytes")
    # Texts end up in logs, on terminals and in reason phrases of HTTP: no line breaks or escapes get there (PROTO 2.5).
    return printable(text)


def _stream_id(frame: pb.Frame) -> int:
    if not 0 < frame.stream_id < MAX_OFFSET:
        raise RemoteProtocolError(f"frame for stream {frame.stream_id}")
    return frame.stream_id


def _offset(value: int) -> int:
    if value >= MAX_OFFSET:
        raise RemoteProtocolError("credit out of range", Code.FLOW_CONTROL)
    return value


def _decode_data(frame: pb.Frame) -> f.Data:
    data = frame.data
    if not 0 < len(data) <= MAX_DATA_BYTES:
        raise RemoteProtocolError(f"DATA of {len(data)} bytes, 1 to {MAX_DATA_BYTES} are allowed")
    return f.Data(_stream_id(frame), data)


def _decode_credit(frame: pb.Frame) -> f.Credit:
    return f.Credit(_stream_id(frame), _offset(frame.credit))


def _decode_target(message: pb.Open) -> Target:
    match message.WhichOneof("target"):
        case "tcp":
            host, port = message.tcp.host, message.tcp.port
            if not 0 < len(host) <= MAX_HOST_BYTES or not 0 < port < 65536 or not is_word(host):
                raise RemoteProtocolError("OPEN with a host or port out of range")
            return TcpTarget(host, port)
        case "service":
            if not 0 < len(message.service) <= MAX_SERVICE_BYTES or not is_word(message.service):
                raise RemoteProtocolError("OPEN with a service name out of range")
            return ServiceTarget(message.service)
        case _:  # a later build's kind of target: the stream is refused, and the session goes on (PROTO 2.3)
            return UnknownTarget()


_KINDS = {int(kind): kind for kind in PrincipalKind}


def _decode_principal(message: pb.Open) -> Principal:
    if not message.HasField("principal"):  # an older build's says it in words
        text = _text(message.principal_text)
        return Principal(kind=PrincipalKind.UNKNOWN, name=text) if text else NOBODY
    told = message.principal
    if len(told.groups) > MAX_GROUPS or sum(len(group.encode()) for group in told.groups) > MAX_GROUPS_BYTES:
        raise RemoteProtocolError(f"principal in more than {MAX_GROUPS} groups, or of too long names")
    return Principal(
        kind=_KINDS.get(told.kind, PrincipalKind.UNKNOWN),
        name=_text(told.name),
        groups=tuple(map(printable, told.groups)),
        proof=_text(told.proof, MAX_PROOF_BYTES),
    )


def _decode_agent(message: pb.Open) -> str:
    if len(message.agent) > MAX_NAME_BYTES or not is_word(message.agent):
        raise RemoteProtocolError("OPEN for an agent whose name is out of range")
    return message.agent


def _decode_open(frame: pb.Frame) -> f.Open:
    message = frame.open
    if message.deadline_ms == 0:
        raise RemoteProtocolError("OPEN without a deadline")
    if len(message.early_data) > MAX_EARLY_BYTES:
        raise RemoteProtocolError(f"OPEN with {len(message.early_data)} bytes, at most {MAX_EARLY_BYTES} are allowed")
    known = message.traffic_class in (0, 1, 2)
    return f.Open(
        stream_id=_stream_id(frame),
        target=_decode_target(message),
        deadline_ms=message.deadline_ms,
        credit=_offset(message.credit),
        traffic_class=f.TrafficClass(message.traffic_class) if known else f.TrafficClass.AUTO,
        principal=_decode_principal(message),
        trace_id=_text(message.trace_id, MAX_TRACE_ID_BYTES),
        early_data=message.early_data,
        agent=_decode_agent(message) if message.agent else "",
        hop=message.hop,
    )


def _decode_accept(frame: pb.Frame) -> f.Accept:
    message = frame.accept
    return f.Accept(_stream_id(frame), _text(message.resolved_address), _offset(message.credit))


def _decode_fin(frame: pb.Frame) -> f.Fin:
    return f.Fin(_stream_id(frame))


def _decode_reset(frame: pb.Frame) -> f.Reset:
    return f.Reset(_stream_id(frame), Code.from_wire(frame.reset.code), _text(frame.reset.text))


def _decode_stop_sending(frame: pb.Frame) -> f.StopSending:
    return f.StopSending(_stream_id(frame), Code.from_wire(frame.stop_sending.code))


def _decode_ping(frame: pb.Frame) -> f.Ping:
    return f.Ping(frame.ping.nonce)


def _decode_pong(frame: pb.Frame) -> f.Pong:
    return f.Pong(frame.pong.nonce, frame.pong.idle_silence_ms)


def _decode_go_away(frame: pb.Frame) -> f.GoAway:
    message = frame.go_away
    return f.GoAway(Code.from_wire(message.code), _text(message.text), message.reconnect_after_ms)


_DECODERS: dict[str, Callable[[pb.Frame], f.Frame]] = {
    "data": _decode_data,
    "credit": _decode_credit,
    "open": _decode_open,
    "accept": _decode_accept,
    "fin": _decode_fin,
    "reset": _decode_reset,
    "stop_sending": _decode_stop_sending,
    "ping": _decode_ping,
    "pong": _decode_pong,
    "go_away": _decode_go_away,
}
