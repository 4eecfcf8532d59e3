"""Two Duplexes joined in memory, with bounded buffers, half-close and resets, for tests of what runs over a Duplex."""

from __future__ import annotations

import asyncio
from collections import deque

from tunnel.core.wire.errors import Code, StreamClosed, StreamError, StreamReset


class _Pipe:
    """One direction."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.chunks: deque[bytes] = deque()
        self.buffered_bytes = 0
        self.ended = False
        self.error: StreamError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


class MemoryDuplex:
    """One end of a pair."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    @property
    def closed(self) -> bool:
        """This end was closed or reset."""
        return self._closed

    async def read(self, max_bytes: int = 65536) -> bytes:
        pipe = self._incoming
        while not (pipe.chunks or pipe.ended or pipe.error):
            await pipe.change()
        if pipe.error:
            raise pipe.error
        if not pipe.chunks:
            return b""
        chunk = pipe.chunks.popleft()
        if len(chunk) > max_bytes:
            pipe.chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        pipe.buffered_bytes -= len(chunk)
        pipe.wake()
        return chunk

    async def write(self, data: bytes | memoryview) -> None:
        pipe = self._outgoing
        rest = bytes(data)
        while rest:
            while pipe.buffered_bytes >= pipe.capacity_bytes and not (pipe.error or pipe.ended):
                await pipe.change()
            if pipe.error:
                raise pipe.error
            if pipe.ended:
                raise StreamClosed("written after its end")
            part = rest[: pipe.capacity_bytes - pipe.buffered_bytes]
            rest = rest[len(part) :]
            pipe.chunks.append(part)
            pipe.buffered_bytes += len(part)
            pipe.wake()

    async def write_eof(self) -> None:
        self._outgoing.ended = True
        self._outgoing.wake()

    async def aclose(self) -> None:
        self._closed = True
        await self.write_eof()
        if not self._incoming.ended:
            self._incoming.error = self._incoming.error or StreamReset("the other side closed", Code.CANCELLED)
            self._incoming.wake()

    def reset(self, code: Code = Code.CANCELLED, text: str = "") -> None:
        self._closed = True
        for pipe in (self._incoming, self._outgoing):
            pipe.error = StreamReset(text, code)
            pipe.wake()


def duplex_pair(capacity_bytes: int = 256 * 1024) -> tuple[MemoryDuplex, MemoryDuplex]:
    """Two joined ends; each direction buffers at most `capacity_bytes`."""
    there, back = _Pipe(capacity_bytes), _Pipe(capacity_bytes)
    return MemoryDuplex(back, there), MemoryDuplex(there, back)
