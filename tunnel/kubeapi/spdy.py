"""The server's side of SPDY/3.1, which frames the connections of `kubectl port-forward`, as bytes in and bytes out.

Kubernetes uses little of it: the client opens streams, both sides send data and ends, and nobody has windows, so that
the transport's own back-pressure is all there is. Frames that it does not use are checked for their length and skipped.
No Python library that is kept up speaks it.

Everything that a peer sends is bounded before it is kept: a control frame by MAX_CONTROL_BYTES, its headers, when
unpacked, by MAX_HEADERS_BYTES; data is handed on as it comes, however long its frame says it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from tunnel.kubeapi.spdy_dictionary import DICTIONARY

VERSION = 3
MAX_CONTROL_BYTES = 16 * 1024
"""The most bytes of a control frame. A client of Kubernetes sends some 100 bytes to open a stream."""
MAX_HEADERS_BYTES = 16 * 1024
"""The most bytes of an unpacked header block: a few bytes could stand for a thousand times as many."""
MAX_STREAM_ID = 0x7FFFFFFF
_CONTROL_BIT = 0x80000000
_FLAG_FIN = 0x01
_HEAD_BYTES = 8
_MAX_LENGTH = 0xFFFFFF


class FrameType(IntEnum):
    """The types of control frames (SPDY/3.1, 2.6)."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Status(IntEnum):
    """The reasons for which a stream is reset (SPDY/3.1, 2.6.3)."""

    PROTOCOL_ERROR = 1
    REFUSED_STREAM = 3
    INTERNAL_ERROR = 6


class SpdyError(Exception):
    """The peer broke the protocol; its connection cannot go on."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opens a stream."""

    stream_id: int
    headers: dict[str, str]
    """Names in lower case; the first value where there are several."""
    finished: bool
    """Whether the peer will send no data on it."""


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Some data of a stream, which may be only a part of a frame, and perhaps the end of what the peer sends on it."""

    stream_id: int
    data: bytes
    finished: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer gave a stream up."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """The peer sent a ping, and wants its number back."""

    number: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer will open no more streams: a client of Kubernetes is about to close its connection."""


SpdyEvent = StreamOpened | DataReceived | StreamReset | Pinged | GoneAway

_LEAST_BYTES: dict[int, int] = {
    FrameType.SYN_STREAM: 10,
    FrameType.SYN_REPLY: 4,
    FrameType.RST_STREAM: 8,
    FrameType.SETTINGS: 4,
    FrameType.PING: 4,
    FrameType.GOAWAY: 8,
    FrameType.HEADERS: 4,
    FrameType.WINDOW_UPDATE: 8,
}
"""The fewest bytes that a control frame of each type has behind its head."""


class SpdyReceiver:
    """Turns bytes of a client into events."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data_stream = 0
        self._data_left = 0
        self._data_finishes = False
        self._last_opened = 0
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[SpdyEvent]:
        """Yields the events that these bytes complete. Bytes of an incomplete control frame are kept for the next call.

        Raises:
            SpdyError: the peer broke the protocol; the connection is to be closed.
        """
        self._buffer += data
        while True:
            if self._data_left:
                if not self._buffer:
                    return
                yield self._take_data()
            elif not self._has_frame():
                return
            elif (event := self._take_frame()) is not None:
                yield event

    # Internal

    def _take_data(self) -> DataReceived:
        part = bytes(self._buffer[: self._data_left])
        del self._buffer[: len(part)]
        self._data_left -= len(part)
        return DataReceived(self._data_stream, part, self._data_finishes and not self._data_left)

    def _has_frame(self) -> bool:
        """Returns whether the buffer holds a whole control frame, or the head of a data frame.

        Raises:
            SpdyError: the frame is of another version, or longer than MAX_CONTROL_BYTES.
        """
        if len(self._buffer) < _HEAD_BYTES:
            return False
        word: int
        tail: int
        word, tail = struct.unpack_from(">II", self._buffer)
        if not word & _CONTROL_BIT:
            return True
        if (version := (word >> 16) & 0x7FFF) != VERSION:
            raise SpdyError(f"version {version} of SPDY, not {VERSION}")
        if (length := tail & _MAX_LENGTH) > MAX_CONTROL_BYTES:
            raise SpdyError(f"a control frame of {length} bytes, and {MAX_CONTROL_BYTES} is the limit")
        return len(self._buffer) >= _HEAD_BYTES + length

    def _take_frame(self) -> SpdyEvent | None:
        word, tail = struct.unpack_from(">II", self._buffer)
        flags, length = tail >> 24, tail & _MAX_LENGTH
        if not word & _CONTROL_BIT:
            del self._buffer[:_HEAD_BYTES]
            if not word:
                raise SpdyError("data on stream 0")
            self._data_stream, self._data_left, self._data_finishes = word, length, bool(flags & _FLAG_FIN)
            return None if length else DataReceived(word, b"", self._data_finishes)
        kind = word & 0xFFFF
        body = bytes(self._buffer[_HEAD_BYTES : _HEAD_BYTES + length])
        del self._buffer[: _HEAD_BYTES + length]
        if length < _LEAST_BYTES.get(kind, 0):
            raise SpdyError(f"a control frame of type {kind} with {length} bytes")
        return self._control(kind, flags, body)

    def _control(self, kind: int, flags: int, body: bytes) -> SpdyEvent | None:
        (number,) = struct.unpack_from(">I", body.ljust(4, b"\0"))
        match kind:
            case FrameType.SYN_STREAM:
                return self._opened(number & MAX_STREAM_ID, self._headers(body[10:]), bool(flags & _FLAG_FIN))
            case FrameType.SYN_REPLY | FrameType.HEADERS:
                self._headers(body[4:])  # all blocks of a connection are one compressed text
            case FrameType.RST_STREAM:
                return StreamReset(number & MAX_STREAM_ID)
            case FrameType.PING:
                return Pinged(number)
            case FrameType.GOAWAY:
                return GoneAway()
        return None

    def _opened(self, stream_id: int, headers: dict[str, str], finished: bool) -> StreamOpened:
        if stream_id % 2 == 0 or stream_id <= self._last_opened:
            raise SpdyError(f"stream {stream_id} is opened after stream {self._last_opened}")
        self._last_opened = stream_id
        return StreamOpened(stream_id, headers, finished)

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflate.decompress(block, MAX_HEADERS_BYTES)
        except zlib.error as error:
            raise SpdyError(f"headers that cannot be unpacked: {error}") from error
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise SpdyError(f"headers of more than {MAX_HEADERS_BYTES} bytes, or after their end")
        return _parse_headers(text)


def _parse_headers(text: bytes) -> dict[str, str]:
    """Returns the headers of an unpacked block; it trusts what is there, not the number of pairs that the block claims.

    Raises:
        SpdyError: the block ends in the middle of a pair.
    """
    headers: dict[str, str] = {}
    try:
        (pairs,) = struct.unpack_from(">I", text)
        at = 4
        for _ in range(pairs):
            name, at = _counted(text, at)
            value, at = _counted(text, at)
            headers[name.decode("latin-1").lower()] = value.partition(b"\0")[0].decode("latin-1")
    except struct.error as error:
        raise SpdyError("headers that end in the middle") from error
    return headers


def _counted(text: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", text, at)
    end = at + 4 + length
    if end > len(text):
        raise SpdyError("headers that end in the middle")
    return text[at + 4 : end], end


class SpdySender:
    """Makes the frames that a server sends."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream_id: int) -> bytes:
        """Returns the frame that accepts a stream; a client waits for it before it sends."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control_frame(FrameType.SYN_REPLY, struct.pack(">I", stream_id) + block)

    def data(self, stream_id: int, data: bytes, *, finished: bool = False) -> bytes:
        """Returns a frame with data of a stream, less than 16 MiB. With `finished`, it says that no more follows."""
        flags = _FLAG_FIN if finished else 0
        return struct.pack(">II", stream_id, flags << 24 | len(data)) + data

    def reset(self, stream_id: int, status: Status) -> bytes:
        """Returns the frame that gives a stream up, and says why."""
        return _control_frame(FrameType.RST_STREAM, struct.pack(">II", stream_id, status))

    def pong(self, number: int) -> bytes:
        """Returns the answer to a ping with this number."""
        return _control_frame(FrameType.PING, struct.pack(">I", number))


def _control_frame(kind: FrameType, body: bytes) -> bytes:
    return struct.pack(">II", _CONTROL_BIT | VERSION << 16 | kind, len(body)) + body
