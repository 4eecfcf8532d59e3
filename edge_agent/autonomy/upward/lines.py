"""Connections to the API server: a request takes one for itself, and gives it back for the next.

A watch keeps its connection as long as it runs. HTTP/1.1 is spoken, since a connection then belongs to one request: a
client that leaves ends its request by ending the connection, and a reader that is slow slows nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tunnel.aio.http.http1 import MAX_LONG_HEAD_BYTES, ClientConnection, Response
from tunnel.aio.sockets.conn import Conn

IDLE_S = 30.0
"""Seconds that a connection may wait for its next request. API servers close theirs after minutes, and what stands in
between, such as a balancer, after one at the least.
"""
DIAL_S = 10.0
"""Seconds that a connection may take to come about: where packets are dropped, the kernel tries for two minutes."""
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


class NoCredentials(OSError):
    """There is nothing to show an identity with; the text says why."""


class Line:
    """One connection, taken for one request."""

    __slots__ = ("_on_answer", "conn", "generation", "http", "is_cut", "is_fresh", "is_switched")

    def __init__(self, conn: Conn, generation: int, on_answer: Callable[[int], None]) -> None:
        self.conn = conn
        self.generation = generation
        self._on_answer = on_answer
        self.http = ClientConnection(conn, MAX_LONG_HEAD_BYTES)
        self.is_fresh = True
        """Whether it has carried no request yet: one that has may have been closed by the server just now."""
        self.is_cut = False
        """Whether it was ended since the API server is not reached: then another one would not reach it either."""
        self.is_switched = False
        """Whether it speaks another protocol now, and whoever speaks it ends it."""

    async def response(self) -> Response:
        """Waits for the head of an answer, and returns it.

        Raises:
            StreamError: there is none.
        """
        head = await self.http.response()
        self._on_answer(head.status)
        return head


class Lines:
    """The connections of one identity to one API server."""

    def __init__(self, dial: Dial, idle_s: float = IDLE_S) -> None:
        """Dials nothing yet.

        Args:
            dial: makes a connection.
            idle_s: how long a connection may wait for its next request.
        """
        self._dial = dial
        self.generation = 0
        """Goes up when connections are to be made anew, with the identity as it is shown now."""
        self.on_answer: Callable[[int], None] = lambda _status: None
        """Is told the status of each answer, by connections that are made from now on."""
        self._idle_s = idle_s
        self._idle: dict[Line, asyncio.TimerHandle] = {}
        """The connections that wait, the one that was given back last at the end."""
        self._taken: set[Line] = set()
        self._making: set[asyncio.Timeout] = set()
        """What ends the waits for connections that are being made."""
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
        generation = self.generation
        line = Line(await self.dial(http2=False), generation, self.on_answer)
        self._taken.add(line)
        return line

    async def dial(self, *, http2: bool) -> Conn:
        """Returns a new connection, which is the caller's. `http2`: whether HTTP/2 may be spoken on it.

        Raises:
            OSError: there is no way to the API server, or `cut` was called meanwhile.
        """
        try:
            async with asyncio.timeout(DIAL_S) as making:
                self._making.add(making)
                try:
                    return await self._dial(http2=http2)
                finally:
                    self._making.discard(making)
        except TimeoutError as error:
            raise OSError("no connection to it comes about") from error

    def give_back(self, line: Line) -> None:
        """Takes a connection back. It is kept if its request was sent and answered as a whole, and closed if not."""
        self._taken.discard(line)
        if line.is_switched:
            return
        whole = line.http.reusable and not line.conn.closed.done()
        is_old = line.generation != self.generation
        if not whole or is_old or self._closed or len(self._idle) >= MAX_IDLE:
            if whole:
                line.conn.close()
            else:
                line.conn.reset()  # the server is to stop what it does for it
            return
        line.is_fresh = False
        self._idle[line] = asyncio.get_running_loop().call_later(self._idle_s, self._forget, line)

    def cut(self) -> None:
        """Ends all connections, also those that were taken or are being made: the API server is not reached by them any
        more.
        """
        now_s = asyncio.get_running_loop().time()
        for making in self._making:
            if not making.expired():
                making.reschedule(now_s)
        for line, timer in self._idle.items():
            timer.cancel()
            line.conn.reset()
        self._idle.clear()
        for line in self._taken:
            line.is_cut = True
            line.conn.reset()

    def renew(self) -> None:
        """Has the next request go out by a new connection, with the identity as it is shown now."""
        self.generation += 1
        self._end_idle()

    def close(self) -> None:
        """Ends those that wait, and each other one when it is given back."""
        self._closed = True
        self._end_idle()

    # Internal

    def _end_idle(self) -> None:
        for line, timer in self._idle.items():
            timer.cancel()
            line.conn.close()
        self._idle.clear()

    def _forget(self, line: Line) -> None:
        del self._idle[line]
        line.conn.close()
