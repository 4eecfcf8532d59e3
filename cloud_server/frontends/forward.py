"""Static forwards: a local TCP listener whose connections go to one target at one agent."""

from __future__ import annotations

from cloud_server.opens.audit import OpenRecord, audited
from cloud_server.opens.opener import Opener
from tunnel.aio.sessions.pending import open_unless_gone
from tunnel.aio.sessions.splice import splice
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.limits import MAX_EARLY_BYTES
from tunnel.core.wire.target import TcpTarget

FRONTEND = "forward"


class Forward:
    """One forward."""

    def __init__(self, opener: Opener, listen: str, agent: str, target: TcpTarget, *, deadline_s: float) -> None:
        """`listen` names the forward in the audit record; there is no user to name."""
        self._opener = opener
        self._user = f"forward {listen}"
        self._agent = agent
        self._target = target
        self._deadline_s = deadline_s

    async def handle(self, conn: Conn) -> None:
        """Serve a connection; when it cannot be carried, the client gets a reset, never an end that looks clean."""
        record = OpenRecord(
            frontend=FRONTEND,
            user=self._user,
            peer=conn.peer,
            asked=str(self._target),
            agent=self._agent,
            target=self._target,
        )
        try:
            with audited(record):
                await self._carry(conn, record)
        except OpenRefused as refused:
            conn.reset(refused.code, str(refused))

    # Internal

    async def _carry(self, conn: Conn, record: OpenRecord) -> None:
        early = await conn.first_bytes(MAX_EARLY_BYTES)
        opening = self._opener.open(
            self._agent,
            self._target,
            principal=self._user,
            frontend=FRONTEND,
            deadline_s=self._deadline_s,
            early_data=early,
        )
        # An end alone is no giving up here: a client may send its request and finish before it is connected.
        stream = record.stream = await open_unless_gone(opening, conn.closed)
        if stream is None:
            return
        try:
            conn.skip(len(early))
            detached = conn.detach()
        except BaseException:
            stream.reset(Code.CONNECTION_RESET, "the client left before it was connected")
            raise
        await splice(stream, detached)
