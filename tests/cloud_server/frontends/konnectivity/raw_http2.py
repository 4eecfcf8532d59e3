"""HTTP/2 frame by frame, below what the library for clients would let anybody do."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from h2.errors import ErrorCodes
from hpack import Encoder

from protos.konnectivity_pb2 import Data, DialRequest, Packet, PacketType
from tests.support.konnectivity_client import EMPTY_SETTINGS, PREFACE, framed, request_headers

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_HEADERS, PADDED = 4, 8
HELLO = PREFACE + EMPTY_SETTINGS


def frame(kind: int, payload: bytes = b"", *, stream: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, stream and payload of each whole frame."""
    while len(data) >= 9:
        high, low, kind, _, stream = struct.unpack(">HBBBI", data[:9])
        length = high << 8 | low
        yield kind, stream, data[9 : 9 + length]
        data = data[9 + length :]


def request(stream: int, **changed: str) -> bytes:
    return frame(HEADERS, Encoder().encode(request_headers(Path("/s"), **changed)), stream=stream, flags=END_HEADERS)


def dial_of(port: int) -> bytes:
    """A message that dials."""
    request = DialRequest(protocol="tcp", address=f"10.0.0.1:{port}", random=1)
    return framed(Packet(dial_request=request).SerializeToString())


def data_of(connect_id: int, data: bytes) -> bytes:
    """A message with data."""
    return framed(Packet(type=PacketType.DATA, data=Data(connect_id=connect_id, data=data)).SerializeToString())


class Raw:
    """A connection that says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._received = b""

    async def send(self, data: bytes) -> None:
        """Send it, or as much of it as the server wants."""
        if self.writer.is_closing():
            return
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def until(self, kind: int) -> bytes:
        """The payload of the first frame of this kind that was not looked at yet."""
        while True:
            for found, _, payload in frames(self._received):
                if found == kind:
                    self._received = b""
                    return payload
            more = await self._reader.read(65536)
            assert more, f"no frame of kind {kind}"
            self._received += more

    async def all_data(self) -> int:
        """How many bytes of DATA come until stream 1 is reset at its end."""
        while not any(kind == RST_STREAM for kind, _, _ in frames(self._received)):
            more = await self._reader.read(65536)
            assert more, "no end of the stream"
            self._received += more
        return sum(len(payload) for kind, _, payload in frames(self._received) if kind == DATA)

    async def ended(self) -> None:
        """Wait for the end of the connection."""
        with suppress(ConnectionError):
            while more := await self._reader.read(65536):
                self._received += more

    async def goaway(self) -> ErrorCodes:
        """What the connection ended with."""
        await self.ended()
        (last,) = [payload for kind, _, payload in frames(self._received) if kind == GOAWAY]
        return ErrorCodes(struct.unpack(">I", last[4:8])[0])


@asynccontextmanager
async def raw(path: Path, first: bytes = HELLO) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    made = Raw(reader, writer)
    await made.send(first)
    try:
        yield made
    finally:
        writer.transport.abort()
