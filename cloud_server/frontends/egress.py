"""Serves the unix socket of kube-apiserver's egress, where CONNECT and the konnectivity protocol are told apart by the
first bytes.
"""

from __future__ import annotations

import asyncio
import contextlib

from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Handler

PREFACE = b"PRI * HTTP/2.0"
"""The first bytes of HTTP/2; no request of HTTP/1 begins with them."""
FIRST_BYTES_S = 10.0


class EgressFrontend:
    """The front end that hands each connection, with its first bytes, to the one that speaks its protocol."""

    def __init__(self, connect: Handler, konnectivity: Handler) -> None:
        self._connect = connect
        self._konnectivity = konnectivity

    async def handle(self, conn: Conn) -> None:
        """Serves a connection. A client that says nothing gets no answer, since its protocol is not known."""
        first = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_BYTES_S):
                while len(first) < len(PREFACE) and PREFACE.startswith(first):
                    more = await conn.read(len(PREFACE) - len(first))
                    if not more:
                        break
                    first += more
        if not first:
            return
        conn.unread(first)
        await (self._konnectivity if first == PREFACE else self._connect)(conn)
