"""Serves a port on the box that leads to something at the cloud: each connection becomes a stream up the session."""

from __future__ import annotations

import asyncio
from typing import Protocol

from edge_agent.operate.records import end_of, new_trace_id, why
from edge_agent.operate.traffic import LISTEN, Traffic
from tunnel.aio.operate.audit import Audit
from tunnel.aio.sessions.pending import open_unless_gone
from tunnel.aio.sessions.splice import splice
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.limits import MAX_EARLY_BYTES
from tunnel.core.wire.target import Target

DIAL_TIMEOUT_S = 10.0
"""The seconds within which a connection is carried or reset."""


class Link(Protocol):
    """The way up to the cloud."""

    async def open(self, target: Target, *, deadline_s: float, trace_id: str = "", early_data: bytes = b"") -> Stream:
        """Opens a stream to something at the cloud. Cancelling it cancels the dial there.

        `early_data` are its first bytes, up to MAX_EARLY_BYTES: they spare a round trip. A target that is refused never
        gets them.

        Raises:
            OpenRefused: it was refused, or not opened within `deadline_s`.
        """
        ...


class LocalListen:
    """Serves the connections to the listener of one `[[listen]]`."""

    def __init__(self, link: Link, listen: str, target: Target, audit: Audit, traffic: Traffic) -> None:
        """Takes the link that streams are opened through; `listen` names the listener in records."""
        self._link = link
        self._listen = listen
        self._target = target
        self._audit = audit
        self._traffic = traffic

    async def handle(self, conn: Conn) -> None:
        """Serves a connection; one that cannot be carried is reset, never ended as if that were all."""
        began_s = asyncio.get_running_loop().time()
        about = {
            "trace_id": new_trace_id(), "frontend": LISTEN, "listen": self._listen, "peer": conn.peer,
            "target": str(self._target),
        }  # fmt: skip
        try:
            self._audit.admit()
            early = await conn.first_bytes(MAX_EARLY_BYTES)
            stream = await self._open(conn, about["trace_id"], early)
        except OpenRefused as refused:
            self._traffic.refused[LISTEN, refused.code] += 1
            self._audit.record("refused", **about, **why(refused))
            conn.reset(refused.code, str(refused))
            return
        self._traffic.began(LISTEN, stream)
        self._audit.record("open", **about, resolved=stream.resolved_address or None, early_bytes=len(early))
        try:
            await self._carry(conn, stream, early)
        finally:
            self._traffic.ended(stream)
            seconds = round(asyncio.get_running_loop().time() - began_s, 3)
            self._audit.record("end", **about, **end_of(stream), seconds=seconds)

    async def _open(self, conn: Conn, trace_id: str, early: bytes) -> Stream:
        opening = self._link.open(self._target, deadline_s=DIAL_TIMEOUT_S, trace_id=trace_id, early_data=early)
        # An end alone is no giving up: a client may send its request and finish before it is connected.
        stream = await open_unless_gone(opening, conn.closed)
        if stream is None:
            raise OpenRefused("the client gave up", Code.CANCELLED)
        return stream

    async def _carry(self, conn: Conn, stream: Stream, early: bytes) -> None:
        try:
            conn.skip(len(early))
            detached = conn.detach()
        except BaseException:
            stream.reset(Code.CONNECTION_RESET, "the client left before it was connected")
            raise
        splicing = splice(stream, detached)
        del detached  # it may hold 64 KiB, and this call lasts as long as the connection
        await splicing
