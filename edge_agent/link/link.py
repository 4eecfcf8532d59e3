"""One link: a session with one of the servers, dialled, resumed, and dialled again however long they are away."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from edge_agent.link.greeting import Box, dial, greet
from edge_agent.link.pauses import Pauses, is_for_good
from edge_agent.link.servers import Servers
from tunnel.aio.carriers.carrier import Carrier, CarrierLost, DialOptions
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core import events as ev
from tunnel.core.session import Session
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionLost, SessionRefused, TunnelError
from tunnel.core.wire.faults import LINK_DOES_NOT_HOLD, SESSION_LOST, SHUTTING_DOWN
from tunnel.core.wire.handshake import Welcome

STICK_S = 5.0
"""The seconds for which a lost link with open streams is tried at the same server alone: only that one can resume
them."""
USEFUL_S = 2.0
"""A link that was lost after fewer seconds, before anything came over it, counts as a dial that failed."""
_FINAL = (Code.IDENTITY_REJECTED, Code.REPLACED)
"""The refusals after which the server has ended the session that we would resume."""

_log = structlog.get_logger("edge.link")


class Watcher(Protocol):
    """The interface of who is told how links fare."""

    def failed(self, error: CarrierLost | TunnelError) -> None:
        """Takes note that a dial came to nothing."""
        ...

    def up(self, *, resumed: bool) -> None:
        """Takes note that a carrier is up, with a new session or a resumed one."""
        ...

    def lost(self, error: CarrierLost | None) -> None:
        """Takes note that a carrier is gone; None: the server ended it in order."""
        ...


class Owner(Watcher, Protocol):
    """The interface of who has a link, and is told a little more."""

    def leaves(self, session: TunnelSession) -> None:
        """Takes over a session whose server takes no new streams: the link goes on without it."""
        ...


class Link:
    """Keeps one session to one of the servers."""

    def __init__(self, servers: Servers, box: Box, options: DialOptions, owner: Owner) -> None:
        """Prepares the link; nothing is dialled before `run`."""
        self.options = options
        """How servers are dialled from now on."""
        self.servers = servers
        self._box = box
        self._owner = owner
        self._pauses = Pauses()
        self._session: TunnelSession | None = None
        self._tasks = TaskOwner("link")
        self._stopping = False
        self._carrier: Carrier | None = None
        self._lost_s = -STICK_S
        self._last_reason = ""
        self._moved: asyncio.Future[None] | None = None

    # Public

    @property
    def session(self) -> TunnelSession | None:
        """Returns the session to go on with; one that is over is forgotten, and None is returned."""
        if self._session is not None and self._session.closed.done():
            self._session = None
        return self._session

    @property
    def carries(self) -> bool:
        """Returns whether a carrier is up, or being greeted."""
        return self._carrier is not None

    async def run(self) -> None:
        """Dials and carries until `stop`, and as long after it as streams are left; then it returns."""
        first = True
        while not self._over():
            if not first:
                await self._pause(self._pauses.next_s())
                if self._over():
                    return
            first = False
            await self._try_once()

    def reconnect(self) -> None:
        """Has a new carrier used, as for a new certificate; the session goes on over it. Without one, dials at once."""
        self._pauses.wake()
        if self._carrier is not None:
            self._carrier.close()

    def move(self) -> None:
        """Goes on with another server, which has the turn by now; the session of this one is left to end."""
        self._pauses.wake()
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def stop(self) -> None:
        """Stops dialling, but for what the streams that are left need."""
        self._stopping = True
        self._pauses.wake()

    async def aclose(self) -> None:
        """Ends the link at once."""
        self.stop()
        await self._tasks.aclose()

    # Internal

    def _over(self) -> bool:
        """Returns whether dialling is over: a drain needs a link too, as long as streams are left."""
        return self._stopping and not self._has_streams()

    def _has_streams(self) -> bool:
        session = self.session
        return session is not None and session.core.stream_count > 0

    async def _pause(self, delay_s: float) -> None:
        await self._pauses.wait(delay_s)

    async def _try_once(self) -> None:
        server = self.servers.current
        loop = asyncio.get_running_loop()
        try:
            carrier = await dial(server, self._box, self.options)
            self._carrier = carrier
            try:
                welcome = await self._greet(carrier)
                session = self._session_for(server, welcome)
            except BaseException:
                self._carrier = None
                carrier.close()
                raise
        except (CarrierLost, TunnelError) as error:
            self._failed(server, error)
            return
        started_s, received = loop.time(), session.core.last_received
        await self._carry(server, carrier, session, welcome)
        self._carrier = None
        held_s = loop.time() - started_s
        if held_s < USEFUL_S and session.core.last_received == received:
            text = f"{server}: the link is lost as soon as it is up"
            self._failed(server, CarrierLost(text, LINK_DOES_NOT_HOLD))
            return
        self._last_reason = ""
        self.servers.held()
        self._lost_s = loop.time()
        self._pauses.connected_for(held_s)

    async def _greet(self, carrier: Carrier) -> Welcome:
        session = self.session
        if session is None:
            return await greet(carrier, self._box, b"", 0)
        return await greet(carrier, self._box, session.core.session_id, session.core.last_received)

    async def _carry(self, server: str, carrier: Carrier, session: TunnelSession, welcome: Welcome) -> None:
        """Runs the session over a carrier until that is lost, or until another server is to have the link."""
        self._moved = asyncio.get_running_loop().create_future()
        _log.info("connected", server=server, session=session.label, resumed=welcome.resumed, version=welcome.version)
        self.servers.up(server)
        self._owner.up(resumed=welcome.resumed)
        peer_received = welcome.last_received if welcome.resumed else 0
        run = self._tasks.spawn(f"carrier {server}", self._run(session, server, carrier, peer_received))
        await asyncio.wait({run, self._moved}, return_when=asyncio.FIRST_COMPLETED)
        if not run.done() and self._session is session:
            self._session = None
            self._owner.leaves(session)

    async def _run(self, session: TunnelSession, server: str, carrier: Carrier, peer_received: int) -> None:
        lost = await session.run_carrier(carrier, peer_received)
        reason = str(lost or "ended by the server")
        _log.info("disconnected", server=server, session=session.label, reason=reason)
        self.servers.down(server, reason, lost.fault if lost is not None else SHUTTING_DOWN)
        self._owner.lost(lost)
        if self._session is not session:  # it was left, and cannot be resumed
            session.close(SessionLost("the server has shut down"))

    def _session_for(self, server: str, welcome: Welcome) -> TunnelSession:
        session = self.session
        if session is not None:
            known = welcome.session_id == session.core.session_id
            if welcome.resumed and known and session.core.may_resume(welcome.last_received):
                return session
            session.close(SessionLost("the server does not know the session any more"))
            _log.warning(
                "session lost: its streams were reset", code=SESSION_LOST.code, session=session.label, server=server
            )
        if welcome.resumed:
            raise RemoteProtocolError("the server resumed a session that cannot go on here")
        core = Session(
            session_id=welcome.session_id,
            dialler=True,
            now=self._box.clock(),
            limits=self._box.limits,
            timing=welcome.timing,
            process_budget=self._box.memory,
            features=welcome.features,
        )
        limits = welcome.limits
        core.set_peer_limits(limits.max_streams, limits.max_data_bytes, limits.max_packet_bytes)
        self._session = TunnelSession(
            core, self._box.acceptor, server, on_going_away=self._going_away, clock=self._box.clock
        )
        return self._session

    def _going_away(self, session: TunnelSession, event: ev.PeerGoingAway) -> None:
        _log.info("the server takes no new streams", reason=event.text, reconnect_after_s=event.reconnect_after_s)
        if session is not self._session or self._moved is None or self._moved.done():
            return  # it drains already
        self._pauses.advise(event.reconnect_after_s)
        self.servers.next()
        self._moved.set_result(None)

    def _failed(self, server: str, error: CarrierLost | TunnelError) -> None:
        """Logs a failed attempt, once for each new reason, and chooses the server for the next."""
        reason = str(error)
        level = _log.debug if reason == self._last_reason else _log.warning
        level(
            "cannot connect, trying again",
            code=error.fault.code,
            server=server,
            reason=reason,
            attempt=self._pauses.attempts,
        )
        self._last_reason = reason
        self.servers.down(server, reason, error.fault)
        self._owner.failed(error)
        self._pauses.failed(error)
        session = self.session
        if isinstance(error, SessionRefused) and error.code in _FINAL and session is not None:
            session.close(error)
        sticks = self._has_streams() and asyncio.get_running_loop().time() - self._lost_s < STICK_S
        leaving = isinstance(error, SessionRefused) and error.code is Code.SHUTTING_DOWN
        self.servers.failed(for_good=leaving or is_for_good(error), sticks=sticks)
