"""Serves static forwards: a local TCP listener whose connections go to one target at one agent."""

from __future__ import annotations

from cloud_server.opens.door import Door
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
from tunnel.aio.sessions.carry import carry
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import OpenRefused
from tunnel.core.wire.limits import MAX_EARLY_BYTES
from tunnel.core.wire.target import TcpTarget

FRONTEND = "forward"
DEADLINE_S = 10.0


class Forward:
    """The front end of one forward, whose target may change."""

    def __init__(
        self, door: Door, caller: Caller, agent: str, target: TcpTarget, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """Leads connections to `target` at `agent`, until `lead_to` names another.

        Args:
            door: what it opens streams through.
            caller: stands for whoever connects: nobody asks them who they are.
            agent: that it leads to.
            target: there.
            deadline_s: within which a connection is made or refused; may be changed for those that come.
        """
        self._door = door
        self._caller = caller
        self._route = Route(agent, target)
        self.deadline_s = deadline_s

    def lead_to(self, agent: str, target: TcpTarget) -> bool:
        """Leads connections that come from now on to `target` at `agent`. Returns whether that is elsewhere than
        before.
        """
        before, self._route = self._route, Route(agent, target)
        return self._route != before

    async def handle(self, conn: Conn) -> None:
        """Serves a connection. When it cannot be carried, the client gets a reset, never an end that looks clean."""
        early = await conn.first_bytes(MAX_EARLY_BYTES)
        route = self._route
        asking = OpenRequest(
            caller=self._caller,
            frontend=FRONTEND,
            peer=conn.peer,
            asked=str(route.target),
            route=route,
            deadline_s=self.deadline_s,
            early_data=early,
        )
        try:
            # An end alone is no giving up here: a client may send its request and finish before it is connected.
            live = await self._door.open(asking, conn.closed)
        except OpenRefused as refused:
            conn.reset(refused.code, str(refused))
            return
        if live is not None:
            await carry(live.opened(), conn, sent_bytes=len(early))
