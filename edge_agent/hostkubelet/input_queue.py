"""A bounded queue of input that a client sent and that a command or a socket has not taken yet."""

from __future__ import annotations

import asyncio

from tunnel.core.streams.chunks import append_chunk


class InputQueue:
    """Bytes on their way from the task that receives them to the one that passes them on."""

    def __init__(self, limit_bytes: int) -> None:
        """Makes an empty queue; `put` waits while it holds `limit_bytes` or more."""
        self._limit_bytes = limit_bytes
        self._chunks: list[bytes] = []
        self._small_run = 0
        self._buffered = 0
        self._ended = False
        self._discarding = False
        self._changed = asyncio.Condition()

    async def put(self, data: bytes) -> None:
        """Adds bytes, and waits for room first; they are dropped when nobody wants them any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._buffered < self._limit_bytes or self._discarding)
            if not self._discarding:
                self._small_run = append_chunk(self._chunks, data, self._small_run)
                self._buffered += len(data)
                self._changed.notify_all()

    async def end(self) -> None:
        """Says that no more bytes follow; `get` returns `b""` behind the last ones."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Drops the bytes that are here and all that come later, because nobody reads them any more."""
        async with self._changed:
            self._discarding = True
            self._chunks.clear()
            self._changed.notify_all()

    async def get(self) -> bytes:
        """Waits for bytes and returns the next ones; `b""` at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks or self._ended)
            if not self._chunks:
                return b""
            data = self._chunks.pop(0)
            self._buffered -= len(data)
            self._changed.notify_all()
            return data
