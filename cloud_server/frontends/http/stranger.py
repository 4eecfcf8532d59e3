"""What an HTTP/2 client can make us hold before it has shown who it is.

It may leave every answer unread, and then each of its streams stays: with its head, a window of body, and a task that
waits. One stream at a time costs no more than an HTTP/1 connection does, so each connection has that; what is beyond
comes out of one pool for all strangers. A user is known before the next read, so a user's client takes of it for one
turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cloud_server.frontends.http.http2_stream import Http2Stream
from tunnel.core.streams.budget import Budget

STREAM_BYTES = 16 * 1024
"""A stream beside its head and body: its task, its exchange, and what the library keeps of it. That is 8 kB by
tracemalloc, for an answer of one line; as much again for objects of its head."""


class Stranger:
    """One connection, until its client is `known`. `gone` at its end."""

    def __init__(self, pool: Budget, within_s: float, on_late: Callable[[], None]) -> None:
        """Begin to wait.

        Args:
            pool: of all strangers together.
            within_s: how long it may stay one.
            on_late: is to end the connection then.
        """
        self._pool = pool
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(within_s, on_late)
        self._streams: dict[int, int] = {}
        """What each open stream took of the pool."""

    def admit(self, stream: Http2Stream) -> bool:
        """Whether the stream may be served; `left` follows if so."""
        if self._timer is None:
            return True
        cost = stream.head_bytes + stream.window_bytes + STREAM_BYTES if self._streams else 0
        if cost > self._pool.available_bytes:
            return False
        self._pool.reserve(cost)
        self._streams[stream.id] = cost
        return True

    def left(self, stream: Http2Stream) -> None:
        """Nothing of the stream is kept any more."""
        self._pool.release(self._streams.pop(stream.id, 0))

    def known(self) -> None:
        """It is a user's: from here on nothing is counted."""
        self.gone()

    def gone(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.release(sum(self._streams.values()))
        self._streams.clear()
