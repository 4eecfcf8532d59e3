"""Reads and writes gRPC's messages in a stream of bytes, its statuses and its headers, without I/O."""

from __future__ import annotations

import struct
from enum import IntEnum

from tunnel.aio.http.http2_stream import Headers

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The longest message, which is what gRPC takes by default; kube-apiserver's own messages are a TLS record or two."""
_PREFIX = struct.Struct(">BI")


class Status(IntEnum):
    """The reason why a call ended, in gRPC's numbers."""

    OK = 0
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallFailed(Exception):
    """The client broke a rule of gRPC: its call ends with this status."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class MessageReader:
    """The reader that puts messages together from the pieces that come in."""

    def __init__(self, encoding: bytes) -> None:
        """Starts without a piece. `encoding` is the request's grpc-encoding; empty for none."""
        self._encoding = encoding
        self._buffer = bytearray()

    @property
    def incomplete(self) -> bool:
        """Returns whether a message has begun and not ended."""
        return bool(self._buffer)

    @property
    def wanted_bytes(self) -> int:
        """Returns how many bytes the incomplete message will have; 0 while that is not known."""
        return self._length() if len(self._buffer) >= _PREFIX.size else 0

    def feed(self, data: bytes) -> list[bytes]:
        """Takes a piece, and returns the messages that are complete with it.

        Raises:
            CallFailed: one is too long or compressed.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= _PREFIX.size:
            end = _PREFIX.size + self._length()
            if len(self._buffer) < end:
                break
            messages.append(bytes(memoryview(self._buffer)[_PREFIX.size : end]))
            del self._buffer[:end]
        return messages

    def _length(self) -> int:
        compressed, length = _PREFIX.unpack_from(self._buffer)
        if compressed:
            if self._encoding in (b"", b"identity"):
                raise CallFailed(Status.INTERNAL, "a compressed message in a call without grpc-encoding")
            raise CallFailed(Status.UNIMPLEMENTED, "compressed messages are not taken")
        if length > MAX_MESSAGE_BYTES:
            raise CallFailed(
                Status.RESOURCE_EXHAUSTED, f"a message of {length} bytes; {MAX_MESSAGE_BYTES} is the limit"
            )
        return int(length)


def framed(message: bytes) -> bytes:
    """Returns a message as it goes into the stream."""
    return _PREFIX.pack(0, len(message)) + message


RESPONSE_HEADERS: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
]


def trailers(status: Status, text: str) -> Headers:
    """Returns the trailers that end a call. `text` is one line of ASCII; empty for none."""
    end: Headers = [(b"grpc-status", b"%d" % status)]
    if text:
        end.append((b"grpc-message", text.replace("%", "%25").encode("ascii", "replace")))
    return end


def is_grpc(content_type: bytes) -> bool:
    """Returns whether a request's content-type is gRPC with protobuf messages."""
    return content_type.lower().partition(b";")[0].strip() in (b"application/grpc", b"application/grpc+proto")
