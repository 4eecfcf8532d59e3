"""Input that a client sent and that a command or a socket has not taken yet, bounded."""

from __future__ import annotations

import asyncio
from collections import deque

from tunnel.core.streams.chunks import append_chunk


class InputQueue:
    """Bytes between the one who receives them and the one who passes them on."""

    def __init__(self, limit_bytes: int) -> None:
        """`put` waits while so many bytes or more are here."""
        self._limit_bytes = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._small_run = 0
        self._buffered = 0
        self._ended = False
        self._discarding = False
        self._changed = asyncio.Condition()

    async def put(self, data: bytes) -> None:
        """Add bytes, waiting for room; they are dropped when nobody wants them any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._buffered < self._limit_bytes or self._discarding)
            if not self._discarding:
                self._small_run = append_chunk(self._chunks, data, self._small_run)
                self._buffered += len(data)
                self._changed.notify_all()

    async def end(self) -> None:
        """No more bytes follow."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Nobody reads it any more: drop what is here and what comes."""
        async with self._changed:
            self._discarding = True
            self._chunks.clear()
            self._changed.notify_all()

    async def get(self) -> bytes:
        """The next bytes; `b""` at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks or self._ended)
            if not self._chunks:
                return b""
            data = self._chunks.popleft()
            self._buffered -= len(data)
            self._changed.notify_all()
            return data
