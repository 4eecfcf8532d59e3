"""Accepts agents: from a carrier's first message to a session that runs on it, new or resumed (PROTO 3 and 7)."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import Directory
from cloud_server.agents.node_service import NodeService
from cloud_server.agents.pace import AgentPace
from cloud_server.agents.refusals import Refusals
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import Carrier, CarrierLost
from tunnel.aio.process.clock import MONOTONIC, Clock
from tunnel.aio.process.limit_use import LimitUse, most
from tunnel.aio.sessions.incoming import Acceptor
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core import events as ev
from tunnel.core.path.probes import PingBudget
from tunnel.core.session import Session
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionLost, SessionRefused, TunnelError
from tunnel.core.wire.faults import NO_MEMORY_FOR_STREAM, SHUTTING_DOWN
from tunnel.core.wire.features import common
from tunnel.core.wire.handshake import choose_protocol, decode_hello, encode_refusal, encode_welcome
from tunnel.core.wire.limits import SESSION_ID_BYTES, Limits, Timing

_log = structlog.get_logger("cloud.sessions")

NEW, RESUMED = "new", "resumed"
SHORT_SHARE = 0.5
"""How much of the memory must be taken before sessions without a link must do with SUSPENDED_SHARE of it."""
SUSPENDED_SHARE = 0.25
MAKE_ROOM_EVERY_S = 1.0
"""Seconds between two looks at all that wait: there may be thousands of them, whose links are lost one by one."""
REPLACED_REMEMBERED = 16
"""How many processes that lost their place are remembered for each agent."""


class IdentityCheck(Protocol):
    """Decides whether a certificate still stands for an agent."""

    async def check(self, name: str, spki_sha256: bytes, not_after: datetime | None = None) -> None:
        """Returns when it does; `not_after` is the end of the certificate, None where that is not known.

        Raises:
            TunnelError: it does not; the text tells the box's owner what to do.
        """
        ...


class AgentSessions:
    """Turns carriers into sessions of agents."""

    def __init__(
        self,
        agents: Agents,
        directory: Directory,
        identities: IdentityCheck,
        *,
        version: str,
        limits: Limits,
        timing: Timing,
        process_budget: Budget,
        ping_budget: PingBudget,
        server_id: str = "",
        acceptor: Callable[[str], Acceptor],
        turned_down: Callable[[str, ev.OpenTurnedDown], None],
        refusals: Refusals | None = None,
        pace: AgentPace | None = None,
        clock: Clock = MONOTONIC,
    ) -> None:
        """Starts without sessions.

        `server_id` tells this server from others of its cloud; `acceptor` makes what answers the streams that an agent
        of this name opens; `turned_down` is told of those that were refused before that; `pace` is what agents may ask
        for, None for the usual; `clock` is that of every session.
        """
        self._agents = agents
        self._directory = directory
        self._identities = identities
        self._version = version
        self._limits = limits
        self._timing = timing
        self.memory = process_budget
        """What windows, queues and kept packets of all sessions may take together."""
        self._ping_budget = ping_budget
        self._server_id = server_id
        self._acceptor = acceptor
        self._turned_down = turned_down
        self._refusals = refusals or Refusals()
        self._pace = pace or AgentPace(limits)
        self.links: Counter[str] = Counter()
        """How many carriers of agents there were so far: those that began a session, and those that resumed one."""
        self.lost: Counter[str] = Counter()
        """How many carriers ended so far, by the code of the cause."""
        self._clock = clock
        self._instances: dict[str, bytes] = {}
        self._replaced: dict[str, deque[bytes]] = {}
        self._draining: SessionRefused | None = None
        self._suspended: dict[str, TunnelSession] = {}
        """Sessions that lost their carrier and wait for another one, by agent."""
        self._looks_again: asyncio.TimerHandle | None = None
        """The next look at them, while memory is short."""

    @property
    def refused(self) -> Counter[str]:
        """Returns how many agents were turned away so far, by the code of the cause."""
        return self._refusals.counts

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much is used of what agents may open towards the cloud, and of the memory of streams."""
        cores = [session.core for session in self._directory.sessions()]
        yield LimitUse("agent_streams", self._limits.max_streams, most(one.peer_stream_count for one in cores))
        used = most(one.memory_bytes for one in cores)
        yield LimitUse("agent_stream_memory_bytes", self._limits.session_budget_bytes, used)
        yield LimitUse("stream_memory_bytes", self.memory.total_bytes, self.memory.used_bytes)
        yield from self._pace.use_of_limits(self._clock())

    def drain(self, refusal: SessionRefused) -> None:
        """Refuses all new sessions from now on with `refusal`; sessions that run may still be resumed."""
        self._draining = refusal

    async def on_carrier(self, carrier: Carrier, spiffe_uri: str, spki_sha256: bytes) -> None:
        """Takes an agent's first message on a carrier and runs a session on the carrier until it is lost. Returns when
        the carrier is lost or was refused.
        """
        name = spiffe_uri.rpartition("/")[2]
        accepted = await self._accept(name, carrier, spki_sha256)
        if accepted is None:
            return
        session, received, welcome = accepted
        reason, cause = "the server stopped", SHUTTING_DOWN
        try:
            lost = await session.run_carrier(carrier, received, welcome)
            reason = str(lost or "ended by the agent")
            cause = lost.fault if lost is not None else SHUTTING_DOWN
        finally:
            self.lost[cause.code] += 1
            if not session.attached and not session.closed.done():
                self._suspended[name] = session
                self._make_room()
            self._agents.lost(name, session, reason)
        _log.info("agent disconnected", agent=name, address=carrier.peer, session=session.label, reason=reason)

    # Internal

    def _make_room(self) -> None:
        """Ends sessions that wait for another carrier, those with the most memory first, while they have more than
        their share and memory is short. What they have is for a resume, and may be all that a box left behind.
        """
        memory = self.memory
        if memory.used_bytes < memory.total_bytes * SHORT_SHARE or self._looks_again is not None:
            return
        self._looks_again = asyncio.get_running_loop().call_later(MAKE_ROOM_EVERY_S, self._look_again)
        used = {name: session.core.memory_bytes for name, session in self._suspended.items()}
        total = sum(used.values())
        for name in sorted(used, key=used.__getitem__, reverse=True):
            if total <= memory.total_bytes * SUSPENDED_SHARE:
                break
            total -= used[name]
            _log.warning(
                "session ended: its link is away and memory is short",
                code=NO_MEMORY_FOR_STREAM.code,
                agent=name,
                bytes=used[name],
            )
            self._suspended[name].close(SessionLost("its link was away while memory was short"))

    def _look_again(self) -> None:
        self._looks_again = None
        self._make_room()

    async def _accept(self, name: str, carrier: Carrier, spki_sha256: bytes) -> tuple[TunnelSession, int, bytes] | None:
        """Takes an agent's first message. Returns its session, the highest packet that the agent has of it, and the
        answer to send; None when there is no session. What was needed for this alone is gone with this call, while the
        carrier may stay for days.

        The session must be attached to the carrier before anything is awaited: the answer says what was received, and
        no packet may come in after that.
        """
        log = _log.bind(agent=name, address=carrier.peer)
        try:
            message = await carrier.read()
            if message is None:
                return None
            await self._pace.link(name, self._clock())
            # After these waits, not before: the name may have been revoked or given away meanwhile, and whoever takes
            # it away ends only the sessions that there are.
            await self._identities.check(name, spki_sha256, getattr(carrier, "not_after", None))
            hello = decode_hello(message)
            protocol = choose_protocol(hello)
            session, resumed = self._session_for(name, hello)
        except CarrierLost as lost:
            log.info("link lost during the handshake", reason=str(lost))
            return None
        except TunnelError as error:
            await _refuse(carrier, self._refusals.answer(name, carrier.peer, error))
            return None
        self._refusals.accepted(name)
        self._suspended.pop(name, None)
        self._make_room()
        welcome = encode_welcome(
            protocol=protocol,
            version=self._version,
            session_id=session.core.session_id,
            resumed=resumed,
            last_received=session.core.last_received,
            limits=self._limits,
            timing=self._timing,
            features=session.core.features,
            server_id=self._server_id,
        )
        limits = hello.limits
        session.core.set_peer_limits(limits.max_streams, limits.max_data_bytes, limits.max_packet_bytes)
        self.links[RESUMED if resumed else NEW] += 1
        self._agents.took(name, session, hello, carrier.peer)
        log.info("agent connected", session=session.label, resumed=resumed, version=hello.version)
        return session, hello.last_received if resumed else 0, welcome

    def _session_for(self, name: str, hello: tunnel_pb2.Hello) -> tuple[TunnelSession, bool]:
        """Returns the session to go on with, fenced, or a new one that ends the old; and whether it is resumed.

        Raises:
            SessionRefused: no new session, since this server is draining or another copy of the agent has one.
        """
        wanted = hello.resume_session_id
        current = self._directory.session(name)
        if current is not None and wanted and wanted == current.core.session_id:
            if self._instances.get(name) == hello.instance_id and current.core.may_resume(hello.last_received):
                # Also while draining: its streams are among those that may end.
                current.fence()
                return current, True
            current.close(RemoteProtocolError("the agent cannot go on where it says it stood"))
        if self._draining is not None:
            raise SessionRefused(self._draining.text, self._draining.code, self._draining.retry_after_s)
        if current is not None and not current.closed.done():
            self._replace(name, current, hello.instance_id)
        self._instances[name] = hello.instance_id
        return self._new_session(name, common(hello.features)), False

    def _replace(self, name: str, current: TunnelSession, instance_id: bytes) -> None:
        """Ends a session in favor of a new one.

        Processes are told apart, not sessions: a copy that was refused until its own session had run out would come
        back without one, and two copies would end each other's connections for ever.

        Raises:
            SessionRefused: the process that asks lost its place to the one that has the session now.
        """
        last = self._instances.get(name)
        if last is not None and last != instance_id:
            replaced = self._replaced.setdefault(name, deque(maxlen=REPLACED_REMEMBERED))
            if instance_id in replaced and current.attached:
                raise SessionRefused(
                    f"another process uses the identity of {name}; give each box its own (edge-agent join)",
                    Code.REPLACED,
                )
            replaced.append(last)
        current.close(SessionLost(f"agent {name} was started anew"))

    def _new_session(self, name: str, features: frozenset[str]) -> TunnelSession:
        now = self._clock()
        core = Session(
            session_id=secrets.token_bytes(SESSION_ID_BYTES),
            dialler=False,
            now=now,
            limits=self._limits,
            timing=self._timing,
            process_budget=self.memory,
            ping_budget=self._ping_budget,
            features=features,
            allowance=self._pace.allowance(name, now, lambda one: self._directory.session(one) is not None),
        )
        others = self._acceptor(name)

        def took(node: tunnel_pb2.Node) -> None:
            self._agents.told(name, session, node)

        acceptor = NodeService(took, others).accept
        session = TunnelSession(core, acceptor, name, on_going_away=_on_going_away, clock=self._clock)
        session.on_turned_down = partial(self._turned_down, name)
        session.closed.add_done_callback(lambda _: self._no_longer_waits(name, session))
        return session

    def _no_longer_waits(self, name: str, session: TunnelSession) -> None:
        if self._suspended.get(name) is session:
            del self._suspended[name]


def _on_going_away(session: TunnelSession, event: ev.PeerGoingAway) -> None:
    _log.info("agent is going away", agent=session.peer, reason=event.text)


async def _refuse(carrier: Carrier, refusal: SessionRefused) -> None:
    """Tells the agent why it is refused, and lets it read that before the carrier goes."""
    try:
        await carrier.write(encode_refusal(refusal))
        await carrier.finish()
    except CarrierLost:
        return
