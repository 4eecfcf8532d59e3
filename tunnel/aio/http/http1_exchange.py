"""Carries exchanges over HTTP/1.1: one after the other on their connection."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.aio.http.http1 import MAX_LONG_HEAD_BYTES, HeaderItems, HttpError, Refusal, ServerConnection
from tunnel.aio.http.long_heads import LongHeads
from tunnel.aio.sockets.conn import Conn


class Http1Exchange(ServerConnection):
    """The exchange that a connection is at; `next_request` makes it the next one."""

    def __init__(self, conn: Conn, heads: LongHeads, render: Callable[[HttpError], Refusal], *, trusted: bool) -> None:
        """Takes a connection over.

        Args:
            conn: the connection.
            heads: what long heads take.
            render: makes the answer to what is no request.
            trusted: whether the client's certificate is a user's.
        """
        super().__init__(conn, MAX_LONG_HEAD_BYTES, heads.of(trusted=trusted), render)
        self._conn = conn
        self._heads = heads
        self.last = False
        """Whether the client is to make its next request on another connection."""

    @property
    def peer(self) -> str:
        """Returns the client's address, for logs and records."""
        return self._conn.peer

    async def start(self, status: int, headers: HeaderItems = (), reason: str = "") -> None:
        """Begins a streamed answer; see `ServerConnection.start`."""
        self._conn.settled = True
        await super().start(status, [*headers, ("connection", "close")] if self.last else headers, reason)

    def trust(self) -> None:
        """Notes that the request is a user's; see `Exchange.trust`."""
        self._long_heads = self._heads.of(trusted=True)
        self._conn.known()

    def abort(self) -> None:
        """Resets the connection: a chunked end, or a clean end of the socket, would promise that this is all."""
        self._conn.reset()

    async def take_over(self, headers: HeaderItems, reason: str = "") -> Conn:
        """Switches protocols; see `Exchange.take_over`."""
        self._conn.settled = True
        if early := await self.upgrade(headers, reason):
            self._conn.unread(early)
        return self._conn

    async def wait_lost(self) -> None:
        """Returns when the connection is gone; see `Exchange.wait_lost`."""
        await self._conn.lost()
