"""Connections to the API server: a request takes one for itself, and gives it back for the next.

A watch keeps its connection as long as it runs. HTTP/1.1 is spoken, since a connection then belongs to one request: a
client that leaves ends its request by ending the connection, and a reader that is slow slows nobody else.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunnel.aio.http.http1 import MAX_LONG_HEAD_BYTES, ClientConnection
from tunnel.aio.sockets.conn import Conn

IDLE_S = 30.0
"""Seconds that a connection may wait for its next request. API servers close theirs after minutes, and what stands in
between, such as a balancer, after one at the least.
"""
MAX_IDLE = 16
"""How many connections may wait. A node's components ask for a few things at a time, and then watch."""


class Dial(Protocol):
    """Makes a connection."""

    async def __call__(self, *, http2: bool) -> Conn:
        """Connects and returns the connection. `http2`: whether HTTP/2 may be spoken on it, beside HTTP/1.1.

        Raises:
            OSError: there is no way (ssl.SSLError is one).
        """
        ...


class Line:
    """One connection, taken for one request."""

    __slots__ = ("conn", "http", "is_cut", "is_fresh", "is_switched")

    def __init__(self, conn: Conn) -> None:
        self.conn = conn
        self.http = ClientConnection(conn, MAX_LONG_HEAD_BYTES)
        self.is_fresh = True
        """Whether it has carried no request yet: one that has may have been closed by the server just now."""
        self.is_cut = False
        """Whether it was ended since the API server is not reached any more: another one would be dialled in vain."""
        self.is_switched = False
        """Whether it speaks another protocol now, and whoever speaks it ends it."""


class Lines:
    """The connections of one identity to one API server."""

    def __init__(self, dial: Dial, idle_s: float = IDLE_S) -> None:
        """Dials nothing yet. `idle_s` is how long a connection may wait for its next request."""
        self._dial = dial
        self._idle_s = idle_s
        self._idle: dict[Line, asyncio.TimerHandle] = {}
        """The connections that wait, the one that was given back last at the end."""
        self._taken: set[Line] = set()
        self._dials: set[asyncio.Timeout] = set()
        """What ends the dials that have not come about yet."""
        self._closed = False

    @property
    def idle(self) -> int:
        """Returns how many connections wait."""
        return len(self._idle)

    async def take(self, *, fresh: bool = False) -> Line:
        """Returns a connection for one request. The caller must `give_back` it, whatever became of the request.

        Args:
            fresh: whether it is to be a new one.

        Raises:
            OSError: there is no way to the API server.
        """
        while self._idle and not fresh:
            line, timer = self._idle.popitem()
            timer.cancel()
            if not line.conn.closed.done():
                self._taken.add(line)
                return line
        line = Line(await self.dial(http2=False))
        self._taken.add(line)
        return line

    async def dial(self, *, http2: bool) -> Conn:
        """Returns a new connection, which is the caller's. `http2`: whether HTTP/2 may be spoken on it.

        Raises:
            OSError: there is no way to the API server, or `cut` was called meanwhile.
        """
        async with asyncio.timeout(None) as end:  # its TimeoutError is an OSError
            self._dials.add(end)
            try:
                return await self._dial(http2=http2)
            finally:
                self._dials.discard(end)

    def give_back(self, line: Line) -> None:
        """Takes a connection back. It is kept if its request was sent and answered as a whole, and closed if not."""
        self._taken.discard(line)
        if line.is_switched:
            return
        whole = line.http.reusable and not line.conn.closed.done()
        if not whole or self._closed or len(self._idle) >= MAX_IDLE:
            if whole:
                line.conn.close()
            else:
                line.conn.reset()  # the server is to stop what it does for it
            return
        line.is_fresh = False
        self._idle[line] = asyncio.get_running_loop().call_later(self._idle_s, self._forget, line)

    def cut(self) -> None:
        """Ends all connections, also those that were taken or are being dialled: the API server is not reached by them
        any more.
        """
        for line, timer in self._idle.items():
            timer.cancel()
            line.conn.reset()
        self._idle.clear()
        for line in self._taken:
            line.is_cut = True
            line.conn.reset()
        for end in self._dials:
            end.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Ends those that wait, and each other one when it is given back."""
        self._closed = True
        for line, timer in self._idle.items():
            timer.cancel()
            line.conn.close()
        self._idle.clear()

    def _forget(self, line: Line) -> None:
        del self._idle[line]
        line.conn.close()
