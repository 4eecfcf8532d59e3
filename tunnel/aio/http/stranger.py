"""Bounds what an HTTP/2 client can make us hold before it has shown who it is.

It may leave every answer unread, and then each of its streams stays: with its head, a window of body, and a task that
waits. One stream at a time costs no more than an HTTP/1 connection does, so each connection has that; what is beyond
comes out of one pool for all strangers. A user is known before the next read, so a user's client takes of it for one
turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnel.aio.http.http2_stream import Http2Stream
from tunnel.core.streams.budget import Budget

STREAM_BYTES = 16 * 1024
"""Bytes that a stream takes beside its head and body: its task, its exchange, and what the library keeps of it. That is
8 kB by tracemalloc, for an answer of one line; as much again for objects of its head.
"""


class Stranger:
    """What one connection takes until its client is `known`. Call `gone` at its end."""

    def __init__(self, pool: Budget, within_s: float, on_late: Callable[[], None]) -> None:
        """Begins to wait until the client is known.

        Args:
            pool: the memory for all strangers together.
            within_s: how many seconds the client may stay a stranger.
            on_late: is called then, and must end the connection.
        """
        self._pool = pool
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(within_s, on_late)
        self._streams: dict[int, int] = {}
        """The bytes of the pool that each open stream took."""

    def admit(self, stream: Http2Stream) -> bool:
        """Returns whether the stream may be served. If so, the caller must call `left` later."""
        if self._timer is None:
            return True
        cost = stream.head_bytes + stream.window_bytes + STREAM_BYTES if self._streams else 0
        if cost > self._pool.available_bytes:
            return False
        self._pool.reserve(cost)
        self._streams[stream.id] = cost
        return True

    def left(self, stream: Http2Stream) -> None:
        """Gives back what a stream took, since nothing of it is kept any more."""
        self._pool.release(self._streams.pop(stream.id, 0))

    def known(self) -> None:
        """Stops counting, since the client is a user."""
        self.gone()

    def gone(self) -> None:
        """Gives back all that the connection took, and stops waiting, since it has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.release(sum(self._streams.values()))
        self._streams.clear()
