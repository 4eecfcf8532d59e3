"""Opens streams at agents of this server, over the first route that works: the last of the chain."""

from __future__ import annotations

import asyncio

from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import Directory
from cloud_server.opens.live import LiveOpen
from tunnel.aio.sessions.reopen import LEAST_S, open_until
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.names import close_name, meant
from tunnel.core.wire.target import Target

MAX_TRIES = 3
"""How many routes are tried. More would only make a client wait for what does not work."""
LINK_WAIT_S = 3.0
"""Seconds that an open waits for an agent whose link is down, whatever ended it: a process that was killed, and a
router that forgot a connection, look alike from here.

An agent that lives dials again within a second, and every 3 s at most for as long as it fails (`Backoff`); one that was
killed is back 2 s later when systemd restarts it. After that its user is better told: kubectl asks the fleet API twice
before it says anything.
"""


class Local:
    """The opener of streams at the sessions of agents."""

    def __init__(self, agents: Agents, directory: Directory) -> None:
        self._agents = agents
        self._directory = directory

    # Public

    async def open(self, live: LiveOpen) -> Stream:
        """Opens the stream over the first route that works; see Opener. A try takes no more than its share of what is
        left of the deadline.

        Raises:
            OpenRefused: the last route that was tried did not work.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + live.request.deadline_s
        tries = live.permitted[:MAX_TRIES]
        for left in range(len(tries), 0, -1):
            (live.agent, live.target), live.rule = tries[-left]
            share_s = max(LEAST_S, (give_up_s - loop.time()) / left)
            try:
                return await self._open_at(live, live.agent, live.target, loop.time() + share_s)
            except OpenRefused as refused:
                if left == 1:
                    raise
                live.tried.append(f"{live.agent} {live.target}: {refused.code.label}")
        raise AssertionError("there is at least one route")

    # Internal

    async def _open_at(self, live: LiveOpen, agent: str, target: Target, give_up_s: float) -> Stream:
        request = live.request

        async def session_for(give_up_s: float) -> TunnelSession:
            return await self._session(agent, give_up_s)

        async def open_at(session: TunnelSession, deadline_s: float) -> Stream:
            return await session.open(
                self._agents.as_offered(agent, target),
                deadline_s=deadline_s,
                traffic_class=request.traffic_class,
                principal=request.caller.principal,
                trace_id=request.trace_id,
                early_data=request.early_data,
            )

        try:
            return await open_until(give_up_s, session_for, open_at, once=bool(request.early_data))
        except OpenRefused as refused:
            raise _named(refused, agent) from None

    async def _session(self, agent: str, give_up_s: float) -> TunnelSession:
        """Waits for a session with a link and returns it, for LINK_WAIT_S at most; until the end for an agent that is
        on its way to a server that has just started.

        Raises:
            OpenRefused: the agent is away, or nobody knows it.
        """
        loop = asyncio.get_running_loop()
        while True:
            left_s = max(LEAST_S, give_up_s - loop.time())
            wait_s = min(LINK_WAIT_S, left_s)
            session = self._directory.session(agent)
            if session is None and self._agents.is_expected(agent):
                session = await self._directory.arrival(agent, left_s)
            if session is None:
                raise self._absent(agent)
            if session.attached or await session.attached_within(wait_s):
                return session
            if session is self._directory.session(agent):
                raise self._absent(agent)
            # It is over, and there may be a new one.

    def _absent(self, agent: str) -> OpenRefused:
        if not self._agents.is_known(agent):
            close = meant(close_name(agent, self._agents.is_known))
            return OpenRefused(f"agent {agent} is not known here{close}", Code.UNKNOWN_AGENT)
        since = self._agents.away_since(agent)
        text = f" since {since:%Y-%m-%d %H:%M:%S} UTC" if since is not None else ""
        return OpenRefused(f"agent {agent} is away{text}", Code.AGENT_AWAY)


def _named(refused: OpenRefused, agent: str) -> OpenRefused:
    """Returns the same refusal in words that name the agent."""
    text = str(refused)
    if text.startswith(f"agent {agent} "):
        return refused
    if refused.code is Code.AGENT_AWAY:
        return OpenRefused(f"agent {agent} is away: {text}", Code.AGENT_AWAY, refused.fault)
    return OpenRefused(f"agent {agent}: {text}", refused.code, refused.fault)
