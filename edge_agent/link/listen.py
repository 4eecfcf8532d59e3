"""A port on the box that leads to something at the cloud: each connection becomes a stream up the session."""

from __future__ import annotations

from typing import Protocol

import structlog

from tunnel.aio.sessions.pending import open_unless_gone
from tunnel.aio.sessions.splice import splice
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.limits import MAX_EARLY_BYTES
from tunnel.core.wire.target import Target

DIAL_TIMEOUT_S = 10.0
"""Within which a connection is carried or reset."""
_log = structlog.get_logger("audit")


class Link(Protocol):
    """The way up."""

    async def open(self, target: Target, *, deadline_s: float, early_data: bytes = b"") -> Stream:
        """Open a stream to something at the cloud. Cancelling it cancels the dial there.

        `early_data` are its first bytes, up to MAX_EARLY_BYTES: they spare a round trip. Refused, it never had any.

        Raises:
            OpenRefused: no, or not within `deadline_s`.
        """
        ...


class LocalListen:
    """One `[[listen]]`; serves the connections of its listener."""

    def __init__(self, link: Link, listen: str, target: Target) -> None:
        """`listen` names it in the record."""
        self._link = link
        self._listen = listen
        self._target = target

    async def handle(self, conn: Conn) -> None:
        """Serve a connection; one that cannot be carried is reset, never ended as if that were all."""
        peer = conn.peer
        try:
            early = await conn.first_bytes(MAX_EARLY_BYTES)
            opening = self._link.open(self._target, deadline_s=DIAL_TIMEOUT_S, early_data=early)
            # An end alone is no giving up: a client may send its request and finish before it is connected.
            stream = await open_unless_gone(opening, conn.closed)
            if stream is None:
                raise OpenRefused("the client gave up", Code.CANCELLED)
        except OpenRefused as refused:
            _log.info(
                "refused",
                listen=self._listen,
                peer=peer,
                target=str(self._target),
                code=refused.code.label,
                reason=str(refused),
            )
            conn.reset(refused.code, str(refused))
            return
        try:
            conn.skip(len(early))
            detached = conn.detach()
        except BaseException:
            stream.reset(Code.CONNECTION_RESET, "the client left before it was connected")
            raise
        result = await splice(stream, detached)
        _log.info(
            "stream",
            listen=self._listen,
            peer=peer,
            target=str(self._target),
            resolved=stream.resolved_address,
            bytes_in=result.bytes_to_socket,
            bytes_out=result.bytes_from_socket,
            duration_s=round(result.duration_s, 3),
            ended=f"{result.reason}: {result.text}" if result.text else result.reason,
        )
