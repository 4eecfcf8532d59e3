"""The agent's side of a session's life: dial, greet, run, and dial again for ever, however long the cloud is away."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import Carrier, CarrierLost, DialOptions, dial_carrier
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.process.clock import MONOTONIC, Clock
from tunnel.aio.process.files import Stamp, stamp
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.incoming import Acceptor
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core import events as ev
from tunnel.core.path.backoff import Backoff
from tunnel.core.session import Session
from tunnel.core.wire.errors import Code, OpenRefused, RemoteProtocolError, SessionLost, SessionRefused, TunnelError
from tunnel.core.wire.faults import DRAIN_CUT, LINK_DOES_NOT_HOLD, NO_LINK, SERVER_SILENT, SESSION_LOST
from tunnel.core.wire.handshake import Welcome, decode_answer, encode_hello
from tunnel.core.wire.limits import SESSION_ID_BYTES, Limits
from tunnel.core.wire.spoken import spoken_s
from tunnel.core.wire.target import Target

GREETING_TIMEOUT_S = 10.0
"""How long the server may take to answer Hello."""
FINISH_S = 2.0
"""For the last packets of a session that ends in order."""
TRIES_PER_SERVER = 2
"""Failures in a row until the next server's turn."""
STICK_S = 5.0
"""A lost link with open streams is tried at the same server alone for so long: only that one can resume them."""
USEFUL_S = 2.0
"""A link that was lost sooner, before anything came over it, was none: dialling went wrong."""
MAX_ADVISED_S = 300.0
"""The longest wait that a server may ask for; what it could say is 49 days, and nobody can call the box back."""
LOOK_S = 2.0
"""How soon a new certificate ends a longer wait: who has just joined the box anew is sitting before it."""
MAX_DRAINING = 8
"""Sessions left to drain beside the newest: a server that sends us away again and again must not fill the box."""
_FINAL = (Code.IDENTITY_REJECTED, Code.REPLACED)
"""Refusals after which the server has ended the session that we would resume."""

_log = structlog.get_logger("edge.link")


class CloudLink:
    """Keeps one session to one of the servers; a session whose server is going away is left to drain beside it."""

    def __init__(
        self,
        servers: Sequence[str],
        tls: ClientTls,
        dial_options: DialOptions,
        acceptor: Acceptor,
        describe: Callable[[], tunnel_pb2.Node],
        *,
        version: str,
        limits: Limits,
        on_connected: Callable[[], None],
        clock: Clock = MONOTONIC,
    ) -> None:
        """`describe` is asked before each Hello; `on_connected` is called at each link that came up.

        `clock` is that of every session.
        """
        self._servers = list(servers)
        self._tls = tls
        self._dial_options = dial_options
        self._acceptor = acceptor
        self._describe = describe
        self._version = version
        self._limits = limits
        self._on_connected = on_connected
        self._clock = clock
        self._instance_id = os.urandom(SESSION_ID_BYTES)
        self._backoff = Backoff(random=random.random)
        self._session: TunnelSession | None = None
        self._draining: list[TunnelSession] = []
        self._tasks = TaskOwner("cloud link")
        self._stopping = asyncio.Event()
        self._linked = asyncio.Event()
        self._carrier: Carrier | None = None
        self._advised_s = 0.0
        self._server_index = 0
        self._failures = 0
        self._lost_s = -STICK_S
        self._last_reason = ""
        self._shown: Stamp = ()
        """What the files of the identity were when they were read last."""
        self._moved: asyncio.Future[None] | None = None

    # Public

    async def run(self) -> None:
        """Dial and carry until `drain`, and on while streams are left then; returns after it."""
        first = True
        while not self._over():
            if not first:
                await self._pause(self._backoff.next_delay(self._advised_s))
                if self._over():
                    return
            first = False
            self._advised_s = 0.0
            await self._try_once()

    async def open(self, target: Target, *, deadline_s: float, early_data: bytes = b"") -> Stream:
        """Open a stream to something at the cloud; while there is no session this waits for one. Cancelling it
        cancels the dial there.

        Raises:
            OpenRefused: the server, a limit or the deadline said no; AGENT_AWAY, there was no session in time.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + deadline_s
        while True:
            session = await self._session_to_open(give_up_s)
            try:
                return await session.open(target, deadline_s=max(0.001, give_up_s - loop.time()), early_data=early_data)
            except OpenRefused as refused:
                # The session ended before there was an answer: the next one is asked, unless bytes may have reached the
                # target, which would then see them twice.
                if refused.code is not Code.SESSION_LOST or early_data or loop.time() >= give_up_s:
                    raise

    def sessions(self) -> list[TunnelSession]:
        """Returns the session to go on with, where there is one, and those that drain beside it."""
        return [session for session in (self._session, *self._draining) if session is not None]

    def reconnect(self) -> None:
        """Use a new carrier, since the certificate is new; the session goes on over it."""
        if self._carrier is not None:
            self._carrier.close()

    async def drain(self, drain_s: float, text: str) -> None:
        """Take no new streams, and wait up to `drain_s` for those that run."""
        self._stopping.set()
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
        """End the sessions in order, after `drain` or instead of the rest of it."""
        async with asyncio.TaskGroup() as finishing:
            for session in self.sessions():
                finishing.create_task(session.finish(FINISH_S))

    async def aclose(self) -> None:
        """End at once what is left."""
        self._stopping.set()
        for session in self.sessions():
            await session.aclose()
        await self._tasks.aclose()

    # Internal

    async def _session_to_open(self, give_up_s: float) -> TunnelSession:
        try:
            async with asyncio.timeout_at(give_up_s):
                while (session := self._live_session()) is None or session.going_away:
                    if self._stopping.is_set():
                        raise OpenRefused("the agent is stopping", Code.SHUTTING_DOWN)
                    self._linked.clear()
                    await self._linked.wait()
        except TimeoutError:
            raise OpenRefused("no link to the cloud", Code.AGENT_AWAY, NO_LINK) from None
        return session

    def _over(self) -> bool:
        """Whether nothing is to be dialled for any more: a drain needs a link too, as long as streams are left."""
        return self._stopping.is_set() and not self._has_streams()

    def _has_streams(self) -> bool:
        session = self._live_session()
        return session is not None and session.core.stream_count > 0

    async def _pause(self, delay_s: float) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(delay_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await (self._stopping.wait() if delay_s < LOOK_S else self._stopping_or_joined())

    async def _stopping_or_joined(self) -> None:
        """Wait for the end, or for a certificate that took the place of the one that was refused."""
        while not self._stopping.is_set() and await self._stamp() == self._shown:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._stopping.wait()

    async def _stamp(self) -> Stamp:
        files = [pem for pem in (self._tls.certificate, self._tls.key, self._tls.ca) if isinstance(pem, Path)]
        return await asyncio.to_thread(stamp, files)

    async def _try_once(self) -> None:
        self._shown = await self._stamp()
        server = self._servers[self._server_index]
        loop = asyncio.get_running_loop()
        try:
            carrier = await dial_carrier(server, self._tls, self._dial_options)
            self._carrier = carrier
            try:
                welcome = await self._greet(carrier)
                session = self._session_for(server, welcome)
            except BaseException:
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
            self._failed(server, CarrierLost(f"{server}: the link is lost as soon as it is up", LINK_DOES_NOT_HOLD))
            return
        self._failures = 0
        self._last_reason = ""
        self._lost_s = loop.time()
        self._backoff.connected_for(held_s)

    async def _greet(self, carrier: Carrier) -> Welcome:
        session = self._live_session()
        hello = encode_hello(
            version=self._version,
            instance_id=self._instance_id,
            node=await asyncio.to_thread(self._describe),
            limits=self._limits,
            resume_session_id=session.core.session_id if session is not None else b"",
            last_received=session.core.last_received if session is not None else 0,
        )
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                await carrier.write(hello)
                answer = await carrier.read()
        except TimeoutError:
            raise CarrierLost(
                f"{carrier.peer}: no answer to Hello within {spoken_s(GREETING_TIMEOUT_S)}", SERVER_SILENT
            ) from None
        if answer is None:
            raise CarrierLost("the server ended the link without an answer", SERVER_SILENT)
        return decode_answer(answer)

    async def _carry(self, server: str, carrier: Carrier, session: TunnelSession, welcome: Welcome) -> None:
        """Run the session over a carrier until that is lost, or until the server wants us gone."""
        self._moved = asyncio.get_running_loop().create_future()
        _log.info("connected", server=server, session=session.label, resumed=welcome.resumed, version=welcome.version)
        self._linked.set()
        self._on_connected()
        peer_received = welcome.last_received if welcome.resumed else 0
        run = self._tasks.spawn(f"carrier {server}", self._run(session, server, carrier, peer_received))
        await asyncio.wait({run, self._moved}, return_when=asyncio.FIRST_COMPLETED)
        if not run.done() and self._session is session:
            self._session = None
            self._leave_to_drain(session)

    async def _run(self, session: TunnelSession, server: str, carrier: Carrier, peer_received: int) -> None:
        lost = await session.run_carrier(carrier, peer_received)
        _log.info("disconnected", server=server, session=session.label, reason=str(lost or "ended by the server"))
        if session in self._draining:
            self._draining.remove(session)
            session.close(SessionLost("the server has shut down"))

    def _leave_to_drain(self, session: TunnelSession) -> None:
        """Its streams may end, beside the sessions that follow."""
        self._draining.append(session)
        self._tasks.spawn(f"drain {session.label}", self._end_drained(session))
        if len(self._draining) > MAX_DRAINING:
            self._draining.pop(0).close(SessionLost("too many sessions of servers that go away"))

    async def _end_drained(self, session: TunnelSession) -> None:
        await session.drained()
        await session.finish(FINISH_S)

    def _live_session(self) -> TunnelSession | None:
        """The session to go on with; one that is over is forgotten."""
        if self._session is not None and self._session.closed.done():
            self._session = None
        return self._session

    def _session_for(self, server: str, welcome: Welcome) -> TunnelSession:
        session = self._live_session()
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
            now=self._clock(),
            limits=self._limits,
            timing=welcome.timing,
            features=welcome.features,
        )
        limits = welcome.limits
        core.set_peer_limits(limits.max_streams, limits.max_data_bytes, limits.max_packet_bytes)
        self._session = TunnelSession(core, self._acceptor, server, on_going_away=self._going_away, clock=self._clock)
        return self._session

    def _going_away(self, session: TunnelSession, event: ev.PeerGoingAway) -> None:
        _log.info("the server takes no new streams", reason=event.text, reconnect_after_s=event.reconnect_after_s)
        if session is not self._session or self._moved is None or self._moved.done():
            return  # it drains already
        self._advised_s = min(event.reconnect_after_s, MAX_ADVISED_S)
        self._next_server()
        self._moved.set_result(None)

    def _failed(self, server: str, error: CarrierLost | TunnelError) -> None:
        """Log a failed attempt, once for each new reason, and choose the server for the next."""
        reason = str(error)
        level = _log.debug if reason == self._last_reason else _log.warning
        level(
            "cannot connect, trying again",
            code=error.fault.code,
            server=server,
            reason=reason,
            attempt=self._backoff.attempts,
        )
        self._last_reason = reason
        self._failures += 1
        if isinstance(error, SessionRefused):
            self._refused(error)
        sticks = self._has_streams() and asyncio.get_running_loop().time() - self._lost_s < STICK_S
        if self._failures >= TRIES_PER_SERVER and not sticks:
            self._next_server()

    def _refused(self, refusal: SessionRefused) -> None:
        self._advised_s = min(refusal.retry_after_s, MAX_ADVISED_S)
        if refusal.code is Code.SHUTTING_DOWN:
            self._failures = TRIES_PER_SERVER
        session = self._live_session()
        if session is not None and refusal.code in _FINAL:
            session.close(refusal)

    def _next_server(self) -> None:
        self._failures = 0
        self._server_index = (self._server_index + 1) % len(self._servers)
