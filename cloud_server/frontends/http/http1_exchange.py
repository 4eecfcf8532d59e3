"""Exchanges over HTTP/1.1: one after the other on their connection."""

from __future__ import annotations

from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.http1 import HeaderItems, ServerConnection


class Http1Exchange(ServerConnection):
    """The exchange that a connection is at; `next_request` makes it the next one."""

    def __init__(self, conn: Conn) -> None:
        super().__init__(conn)
        self._conn = conn

    @property
    def peer(self) -> str:
        """The client's address, for logs and records."""
        return self._conn.peer

    def abort(self) -> None:
        """Reset the connection: a chunked end, or a clean end of the socket, would promise that this is all."""
        self._conn.reset()

    async def take_over(self, headers: HeaderItems, reason: str = "") -> Conn:
        """Switch protocols; see `Exchange.take_over`."""
        if early := await self.upgrade(headers, reason):
            self._conn.unread(early)
        return self._conn
