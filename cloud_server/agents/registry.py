"""The agents: who has joined, who is connected, and the way to open a stream to one of them by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol
from weakref import WeakValueDictionary

from cloud_server.agents.facts import Fact, facts_of
from protos import tunnel_pb2
from tunnel.aio.identity.validity import Validity
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, TunnelError
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.names import as_offered, close_name, meant
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, Target

MAX_LAG = 1024
"""Changes a subscriber may be behind before it is told to start anew."""
LINK_WAIT_S = 3.0
"""How long an open waits for an agent whose link is down, whatever ended it: a process that was killed, and a router
that forgot a connection, look alike from here.

An agent that lives dials again within a second, and every 3 s at most for as long as it fails (`Backoff`); one that was
killed is back 2 s later when systemd restarts it. After that its user is better told: kubectl asks the fleet API twice
before it says anything.
"""

JUST_STARTED_S = 30.0
"""For how long after the start of a server an agent that joined, and has not come yet, counts as one that is on its
way: it was most likely connected to the process before. 5,000 are back after 23-45 s on two cores (`make bench`).
"""


class Change(Enum):
    """What happened to an agent."""

    CONNECTED = "connected"
    AWAY = "away"
    REMOVED = "removed"
    TOLD = "told"
    """It told its box anew, while it was connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """What is known of one agent at a moment."""

    name: str
    joined: datetime | None = None
    """None when that is not known: its certificate is not of our making."""
    connected: bool = False
    since: datetime | None = None
    """When it became connected or away; None when it has never connected to this process."""
    last_seen: datetime | None = None
    node: tunnel_pb2.Node | None = None
    """What it said of its box when it last connected: claims, not facts."""
    version: str = ""
    certificate: Validity | None = None
    """None when it is not known: it is not of our making."""
    address: str = ""
    """`ip:port` that its carrier comes from."""

    @property
    def facts(self) -> list[Fact]:
        """What the box told of itself that only it can know, the latest first."""
        return facts_of(self.node)


class KnownAgents(Protocol):
    """Where the names of joined agents are kept."""

    def names(self) -> Iterable[str]:
        """All of them."""
        ...

    def joined(self, name: str) -> datetime | None:
        """When an agent joined; None when it did not."""
        ...

    def validity(self, name: str) -> Validity | None:
        """Of its certificate; None when that is not known."""
        ...


class _Entry:
    """One agent."""

    __slots__ = ("address", "connected", "last_seen", "name", "node", "session", "since", "version")

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: TunnelSession | None = None
        self.connected = False
        self.since: datetime | None = None
        self.last_seen: datetime | None = None
        self.node: tunnel_pb2.Node | None = None
        self.version = ""
        self.address = ""


class SubscriberTooSlow(Exception):
    """A subscriber fell too far behind: it is to list the agents again."""


class Registry:
    """All agents of this server."""

    def __init__(self, known: KnownAgents) -> None:
        self._known = known
        self._entries: dict[str, _Entry] = {}
        self._subscribers: set[asyncio.Queue[tuple[Change, AgentView] | None]] = set()
        self._started_s = time.monotonic()
        self._arrivals: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    # Public

    def agents(self) -> list[AgentView]:
        """Every agent that joined or is connected, by name."""
        return [self._view(name) for name in self.names()]

    def names(self) -> list[str]:
        """Every agent that joined or is connected, in order."""
        return sorted(set(self._known.names()) | self._entries.keys())

    def agent(self, name: str) -> AgentView | None:
        """One agent; None when it never joined, or does no longer belong here."""
        return self._view(name) if self.is_known(name) else None

    def session(self, name: str) -> TunnelSession | None:
        """The session of an agent, attached or waiting; None when it has none."""
        entry = self._entries.get(name)
        session = entry.session if entry is not None else None
        return None if session is None or session.closed.done() else session

    def sessions(self) -> list[TunnelSession]:
        """Every session."""
        return [session for name in self._entries if (session := self.session(name)) is not None]

    def is_known(self, name: str) -> bool:
        """Whether an agent of that name has joined, or has been connected."""
        return name in self._entries or self._known.joined(name) is not None

    def is_connected(self, name: str) -> bool:
        """Whether its link is up."""
        entry = self._entries.get(name)
        return entry is not None and entry.connected

    async def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        """Changes from now on.

        Raises:
            SubscriberTooSlow: changes were lost.
        """
        queue: asyncio.Queue[tuple[Change, AgentView] | None] = asyncio.Queue(MAX_LAG + 1)
        self._subscribers.add(queue)
        try:
            while (change := await queue.get()) is not None:
                yield change
            raise SubscriberTooSlow
        finally:
            self._subscribers.discard(queue)

    async def open(
        self,
        agent: str,
        target: Target,
        *,
        principal: str,
        frontend: str,
        deadline_s: float = 10.0,
        traffic_class: TrafficClass = TrafficClass.AUTO,
        early_data: bytes = b"",
    ) -> Stream:
        """Open a stream to something at an agent. While its link is down this waits for it, up to LINK_WAIT_S; one that
        is on its way since the server has just started is waited for until the deadline.

        Raises:
            OpenRefused: `code` says why; UNKNOWN_AGENT and AGENT_AWAY are decided here, most others at the agent.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + deadline_s
        while True:
            left_s = max(0.001, give_up_s - loop.time())
            wait_s = min(LINK_WAIT_S, left_s)
            session = self.session(agent)
            if session is None and self._is_expected(agent):
                session = await self._arrival(agent, left_s)
            if session is None:
                raise self._absent(agent)
            if not session.attached and not await session.attached_within(wait_s):
                if session is self.session(agent):
                    raise self._absent(agent)
                continue  # it is over, and there may be a new one
            try:
                return await session.open(
                    self._as_offered(agent, target),
                    deadline_s=max(0.001, give_up_s - loop.time()),
                    traffic_class=traffic_class,
                    principal=_principal(frontend, principal),
                    early_data=early_data,
                )
            except OpenRefused as refused:
                # The agent's process was replaced before it answered: the new one is asked, unless bytes may have
                # reached the target, which would then see them twice.
                if refused.code is not Code.SESSION_LOST or early_data or loop.time() >= give_up_s:
                    raise _named(refused, agent) from None

    # Public - for the accepting of sessions

    def took(self, name: str, session: TunnelSession, hello: tunnel_pb2.Hello, address: str) -> None:
        """An agent has a carrier now, with a new session or a resumed one."""
        entry = self._entries.setdefault(name, _Entry(name))
        entry.session = session
        entry.connected = True
        entry.since = entry.last_seen = datetime.now(UTC)
        # A copy, since a part of a message holds the memory of the whole.
        entry.node = tunnel_pb2.Node()
        entry.node.CopyFrom(hello.node)
        entry.version = hello.version
        entry.address = address
        if (arrival := self._arrivals.get(name)) is not None:
            arrival.set()
        self._tell(Change.CONNECTED, name)

    def told(self, name: str, session: TunnelSession, node: tunnel_pb2.Node) -> None:
        """An agent tells its box anew; nothing happens when another session took the place of this one."""
        entry = self._entries.get(name)
        if entry is not None and entry.session is session:
            entry.node = node
            self._tell(Change.TOLD, name)

    def lost(self, name: str, session: TunnelSession) -> None:
        """A carrier is gone; nothing happens when the agent has another one already."""
        entry = self._entries.get(name)
        if entry is None or entry.session is not session or session.attached:
            return
        if entry.connected:
            entry.connected = False
            entry.since = entry.last_seen = datetime.now(UTC)
            self._tell(Change.AWAY, name)

    def rejoined(self, name: str, error: TunnelError) -> None:
        """An agent's name went to a new key: the session of the old one ends at once."""
        if (session := self.session(name)) is not None:
            session.close(error)

    def removed(self, name: str, error: TunnelError) -> None:
        """An agent's membership was taken away: its session ends at once."""
        entry = self._entries.pop(name, None)
        if entry is not None and entry.session is not None:
            entry.session.close(error)
        self._tell(Change.REMOVED, name)

    # Internal

    def _is_expected(self, agent: str) -> bool:
        just_started = time.monotonic() - self._started_s < JUST_STARTED_S
        return just_started and agent not in self._entries and self._known.joined(agent) is not None

    async def _arrival(self, agent: str, timeout_s: float) -> TunnelSession | None:
        """Wait for an agent's first session; None when it did not come."""
        arrived = self._arrivals.setdefault(agent, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await arrived.wait()
        return self.session(agent)

    def _as_offered(self, agent: str, target: Target) -> Target:
        """A service of ours by the name that this agent has for it."""
        node = self._entries[agent].node
        if node is None or not isinstance(target, ServiceTarget):
            return target
        return ServiceTarget(as_offered(target.name, node.services))

    def _absent(self, agent: str) -> OpenRefused:
        entry = self._entries.get(agent)
        if entry is None and self._known.joined(agent) is None:
            close = meant(close_name(agent, self.is_known))
            return OpenRefused(f"agent {agent} is not known here{close}", Code.UNKNOWN_AGENT)
        since = f" since {entry.since:%Y-%m-%d %H:%M:%S} UTC" if entry is not None and entry.since is not None else ""
        return OpenRefused(f"agent {agent} is away{since}", Code.AGENT_AWAY)

    def _view(self, name: str) -> AgentView:
        entry = self._entries.get(name) or _Entry(name)
        return AgentView(
            name=name,
            joined=self._known.joined(name),
            certificate=self._known.validity(name),
            connected=entry.connected,
            since=entry.since,
            last_seen=datetime.now(UTC) if entry.connected else entry.last_seen,
            node=entry.node,
            version=entry.version,
            address=entry.address,
        )

    def _tell(self, change: Change, name: str) -> None:
        view = self._view(name)
        for queue in self._subscribers:
            if queue.qsize() < MAX_LAG:
                queue.put_nowait((change, view))
            elif queue.qsize() == MAX_LAG:
                queue.put_nowait(None)


def _principal(frontend: str, user: str) -> Principal:
    kind = PrincipalKind.STATIC_FORWARD if frontend == "forward" else PrincipalKind.USER
    return Principal(kind=kind, name=user)


def _named(refused: OpenRefused, agent: str) -> OpenRefused:
    """The same refusal in words that name the agent."""
    if refused.code is Code.AGENT_AWAY:
        return OpenRefused(f"agent {agent} is away: {refused}", Code.AGENT_AWAY, refused.fault)
    return OpenRefused(f"agent {agent}: {refused}", refused.code, refused.fault)
