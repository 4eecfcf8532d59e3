"""The unix socket of kube-apiserver's egress: CONNECT or the konnectivity protocol, told apart by the first bytes."""

from __future__ import annotations

import asyncio
import contextlib

from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Handler

PREFACE = b"PRI * HTTP/2.0"
"""How HTTP/2 begins; no request of HTTP/1 does."""
FIRST_BYTES_S = 10.0


class EgressFrontend:
    """Hands each connection, with its first bytes, to the front end that speaks its protocol."""

    def __init__(self, connect: Handler, konnectivity: Handler) -> None:
        self._connect = connect
        self._konnectivity = konnectivity

    async def handle(self, conn: Conn) -> None:
        """Serve a connection. One that says nothing gets no answer: in which protocol?"""
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
