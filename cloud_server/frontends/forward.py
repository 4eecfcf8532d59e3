"""Static forwards: a local TCP listener whose connections go to one target at one agent."""

from __future__ import annotations

from cloud_server.frontends.audit import log_refused, log_stream
from cloud_server.frontends.opener import Opener
from cloud_server.frontends.pending import open_unless_gone
from tunnel.aio.conn import Conn
from tunnel.aio.splice import splice
from tunnel.core.errors import OpenRefused
from tunnel.core.target import TcpTarget

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
        peer = conn.peer
        try:
            opening = self._opener.open(
                self._agent, self._target, principal=self._user, frontend=FRONTEND, deadline_s=self._deadline_s
            )
            # An end alone is no giving up here: a client may send its request and finish before it is connected.
            stream = await open_unless_gone(opening, conn.lost())
        except OpenRefused as refused:
            log_refused(
                FRONTEND, user=self._user, peer=peer, agent=self._agent, target=str(self._target), refused=refused
            )
            conn.reset(refused.code, str(refused))
            return
        if stream is None:
            return
        try:
            detached = conn.detach()
        except BaseException:
            stream.reset()
            raise
        result = await splice(stream, detached)
        log_stream(
            FRONTEND,
            user=self._user,
            peer=peer,
            agent=self._agent,
            target=self._target,
            resolved=stream.resolved_address,
            result=result,
        )
