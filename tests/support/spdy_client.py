"""The client's side of SPDY/3.1, as kubectl speaks it: frames of its own making, and a reader of a server's."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from tunnel.kubeapi.spdy_dictionary import DICTIONARY

SYN_STREAM, SYN_REPLY, RST_STREAM, PING = 1, 2, 3, 6


def control(kind: int, body: bytes, *, flags: int = 0, version: int = 3) -> bytes:
    """A control frame with whatever in it."""
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body


def data(stream_id: int, content: bytes, *, finished: bool = False) -> bytes:
    """A data frame."""
    return struct.pack(">II", stream_id, int(finished) << 24 | len(content)) + content


class SpdyClientFrames:
    """Makes frames with headers, which one compressor packs for the whole connection."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def block(self, text: bytes) -> bytes:
        """A header block of whatever text."""
        return self._deflate.compress(text) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def headers(self, headers: dict[str, str]) -> bytes:
        """A header block."""
        text = struct.pack(">I", len(headers))
        for pair in headers.items():
            for word in pair:
                text += struct.pack(">I", len(word)) + word.encode()
        return self.block(text)

    def open(self, stream_id: int, headers: dict[str, str], *, finished: bool = False) -> bytes:
        """A SYN_STREAM."""
        body = struct.pack(">IIBB", stream_id, 0, 0, 0) + self.headers(headers)
        return control(SYN_STREAM, body, flags=int(finished))


@dataclass(frozen=True)
class Frame:
    """A frame of the server's; control frames have a kind, and the id that they begin with."""

    kind: int
    """0: data."""
    stream_id: int
    content: bytes
    finished: bool


def frames_in(buffer: bytearray) -> Iterator[Frame]:
    """Take the whole frames out of what a server sent."""
    while len(buffer) >= 8:
        word, tail = struct.unpack_from(">II", buffer)
        length, flags = tail & 0xFFFFFF, tail >> 24
        if len(buffer) < 8 + length:
            return
        body = bytes(buffer[8 : 8 + length])
        del buffer[: 8 + length]
        if word & 0x80000000:
            yield Frame(word & 0xFFFF, int.from_bytes(body[:4], "big"), body[4:], bool(flags & 1))
        else:
            yield Frame(0, word, body, bool(flags & 1))
