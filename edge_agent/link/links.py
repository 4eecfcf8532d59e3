"""Makes one way up of the links of a box: opens streams over one of them, and lets old sessions end beside new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from edge_agent.link.greeting import Box
from edge_agent.link.link import Link, Watcher
from edge_agent.link.servers import Servers
from tunnel.aio.carriers.carrier import CarrierLost, DialOptions
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.reopen import open_until
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost, TunnelError
from tunnel.core.wire.faults import DRAIN_CUT, NO_LINK
from tunnel.core.wire.target import Target

FINISH_S = 2.0
"""The seconds for the last packets of a session that ends in order."""
MAX_DRAINING = 8
"""The most sessions left to drain beside the newest: a server that sends us away again and again must not fill the
box."""

_log = structlog.get_logger("edge.link")


class Links:
    """All links of the box: one today, to one of the servers."""

    def __init__(self, addresses: Sequence[str], box: Box, options: DialOptions, watcher: Watcher) -> None:
        """Prepares the links to the servers at `addresses`; nothing is dialled before `run`."""
        self._watcher = watcher
        self._links = [Link(Servers(addresses), box, options, self)]
        self._draining: list[TunnelSession] = []
        self._tasks = TaskOwner("links")
        self._stopping = False
        self._linked = asyncio.Event()

    # Public

    @property
    def servers(self) -> Servers:
        """Returns the servers, and how each fares."""
        return self._links[0].servers

    @property
    def session(self) -> TunnelSession | None:
        """Returns the newest session that is not over; None without one."""
        return next((session for link in self._links if (session := link.session) is not None), None)

    def sessions(self) -> list[TunnelSession]:
        """Returns all sessions, those that only drain included."""
        return [*(session for link in self._links if (session := link.session) is not None), *self._draining]

    async def run(self) -> None:
        """Keeps the links up until `drain`, and as long after it as streams are left."""
        async with asyncio.TaskGroup() as running:
            for link in self._links:
                running.create_task(link.run())

    async def open(self, target: Target, *, deadline_s: float, trace_id: str = "", early_data: bytes = b"") -> Stream:
        """Opens a stream to something at the cloud, and waits for a session while there is none.

        Cancelling it cancels the dial there.

        Raises:
            OpenRefused: the server, a limit or the deadline said no; AGENT_AWAY, there was no session in time.
        """

        async def open_at(session: TunnelSession, deadline_s: float) -> Stream:
            return await session.open(target, deadline_s=deadline_s, trace_id=trace_id, early_data=early_data)

        give_up_s = asyncio.get_running_loop().time() + deadline_s
        return await open_until(give_up_s, self._session_to_open, open_at, once=bool(early_data))

    def reconnect(self) -> None:
        """Has new carriers used, as for a new certificate; the sessions go on over them."""
        for link in self._links:
            link.reconnect()

    def follow(self, addresses: Sequence[str], options: DialOptions) -> None:
        """Dials other servers, or in another way, from now on.

        A session with a server that is not on the list any more is left to end beside the next one.
        """
        for link in self._links:
            other_way = options != link.options
            link.options = options
            if not link.servers.replace(addresses):
                link.move()
            elif other_way or not link.carries:
                link.reconnect()

    async def drain(self, drain_s: float, text: str) -> None:
        """Takes no new streams, and waits up to `drain_s` seconds for those that run."""
        self._stop()
        sessions = self.sessions()
        for session in sessions:
            session.go_away(Code.SHUTTING_DOWN, text)
        try:
            async with asyncio.timeout(drain_s):
                for session in sessions:
                    await session.drained()
        except TimeoutError:
            left = sum(session.core.stream_count for session in sessions)
            _log.warning(
                "streams still open at the end of the drain are reset",
                code=DRAIN_CUT.code,
                streams=left,
                drain_s=drain_s,
            )

    async def finish(self) -> None:
        """Ends the sessions in order, after `drain` or instead of the rest of it."""
        async with asyncio.TaskGroup() as finishing:
            for session in self.sessions():
                finishing.create_task(session.finish(FINISH_S))

    async def aclose(self) -> None:
        """Ends at once what is left."""
        self._stop()
        for session in self.sessions():
            await session.aclose()
        for link in self._links:
            await link.aclose()
        await self._tasks.aclose()

    # Public - for the links

    def failed(self, error: CarrierLost | TunnelError) -> None:
        """Tells the watcher that a dial came to nothing."""
        self._watcher.failed(error)

    def up(self, *, resumed: bool) -> None:
        """Tells the watcher, and whoever waits for a session, that a carrier is up."""
        self._linked.set()
        self._watcher.up(resumed=resumed)

    def lost(self, error: CarrierLost | None) -> None:
        """Tells the watcher that a carrier is gone; None: the server ended it in order."""
        self._watcher.lost(error)

    def leaves(self, session: TunnelSession) -> None:
        """Lets the streams of a session end beside the sessions that follow."""
        if not session.going_away:
            session.go_away(Code.SHUTTING_DOWN, "the agent goes on with another server")
        self._draining.append(session)
        session.closed.add_done_callback(lambda _closed: self._draining.remove(session))
        self._tasks.spawn(f"drain {session.label}", self._end_drained(session))
        if len(self._draining) > MAX_DRAINING:
            self._draining[0].close(SessionLost("too many sessions of servers that go away"))

    # Internal

    def _stop(self) -> None:
        self._stopping = True
        self._linked.set()
        for link in self._links:
            link.stop()

    async def _session_to_open(self, give_up_s: float) -> TunnelSession:
        try:
            async with asyncio.timeout_at(give_up_s):
                while (session := self.session) is None or session.going_away:
                    if self._stopping:
                        raise OpenRefused("the agent is stopping", Code.SHUTTING_DOWN)
                    self._linked.clear()
                    await self._linked.wait()
        except TimeoutError:
            raise OpenRefused("no link to the cloud", Code.AGENT_AWAY, NO_LINK) from None
        return session

    async def _end_drained(self, session: TunnelSession) -> None:
        await session.drained()
        await session.finish(FINISH_S)
