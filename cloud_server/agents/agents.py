"""The table of agents: who has joined, who is connected, and the changes of both for those that follow them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

from cloud_server.agents.directory import MemoryDirectory
from cloud_server.agents.facts import Fact, facts_of
from cloud_server.agents.feed import Feed
from protos import tunnel_pb2
from tunnel.aio.identity.validity import Validity
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.session import SessionStatistics
from tunnel.core.wire.errors import TunnelError
from tunnel.core.wire.names import as_offered
from tunnel.core.wire.target import ServiceTarget, Target

JUST_STARTED_S = 30.0
"""Seconds after the start of a server during which an agent that joined, and has not connected yet, counts as one that
is on its way: it was most likely connected to the process before. 5,000 agents are back after 23-45 s on two cores
(`make bench`).
"""


class Change(Enum):
    """A kind of change that can happen to an agent."""

    CONNECTED = "connected"
    AWAY = "away"
    REMOVED = "removed"
    TOLD = "told"
    """The agent sent a new description of its box while it was connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """The state of one agent at a moment, as far as this server knows it."""

    name: str
    joined: datetime | None = None
    """When the agent joined; None when that is not known, since its certificate is not of our making."""
    connected: bool = False
    since: datetime | None = None
    """When the agent became connected or away; None when it has never connected to this process."""
    last_seen: datetime | None = None
    node: tunnel_pb2.Node | None = None
    """What the agent said of its box, when it connected last or since then: claims, not facts. None when it has never
    connected to this process.
    """
    version: str = ""
    certificate: Validity | None = None
    """The period in which its certificate is valid; None when that is not known, since the certificate is not of our
    making.
    """
    address: str = ""
    """`ip:port` that the agent's carrier comes from, or came from last; empty when it has never connected."""
    reason: str = ""
    """Why the agent's link was lost last; empty when it never was."""

    @property
    def facts(self) -> list[Fact]:
        """Returns what the box told of itself that only it can know, the latest first."""
        return facts_of(self.node)


class KnownAgents(Protocol):
    """Where the names of joined agents are kept, as this table of agents needs it."""

    def names(self) -> Iterable[str]:
        """Returns the names of all agents that joined."""
        ...

    def joined(self, name: str) -> datetime | None:
        """Returns when an agent joined; None when it did not."""
        ...

    def validity(self, name: str) -> Validity | None:
        """Returns the period in which an agent's certificate is valid; None when that is not known."""
        ...


class _Entry:
    """What the table keeps of one agent that has been connected to this process."""

    __slots__ = ("address", "connected", "last_seen", "node", "reason", "since", "version")

    def __init__(self) -> None:
        self.connected = False
        self.since: datetime | None = None
        self.last_seen: datetime | None = None
        self.node: tunnel_pb2.Node | None = None
        self.version = ""
        self.address = ""
        self.reason = ""


class Agents:
    """The table of all agents of this server, those that joined and those that are connected."""

    def __init__(self, known: KnownAgents, directory: MemoryDirectory) -> None:
        """Makes a table of the agents that `known` lists. `directory` is told of each session that comes and goes."""
        self._known = known
        self._directory = directory
        self._entries: dict[str, _Entry] = {}
        self._changes: Feed[tuple[Change, AgentView]] = Feed()
        self._started_s = time.monotonic()

    # Public

    def agents(self) -> list[AgentView]:
        """Returns every agent that joined or is connected, sorted by name."""
        return [self._view(name) for name in self.names()]

    def each(self) -> Iterator[AgentView]:
        """Yields every agent that joined or is connected, sorted by name, each as it is when it is reached."""
        return (self._view(name) for name in self.names())

    def names(self) -> list[str]:
        """Returns the names of all agents that joined or are connected, sorted."""
        return sorted(set(self._known.names()) | self._entries.keys())

    def agent(self, name: str) -> AgentView | None:
        """Returns one agent; None when it never joined, or does not belong here any more."""
        return self._view(name) if self.is_known(name) else None

    def statistics(self, name: str) -> SessionStatistics | None:
        """Returns the figures of an agent's session; None when it has none."""
        session = self._directory.session(name)
        return session.statistics() if session is not None else None

    def facts(self, name: str) -> list[Fact]:
        """Returns what the box of an agent told of itself that only it can know, the latest first; empty when it told
        nothing.
        """
        entry = self._entries.get(name)
        return facts_of(entry.node) if entry is not None else []

    def log_frames(self, name: str, for_s: float) -> bool:
        """Logs each frame of an agent's session for `for_s` seconds; 0 stops the logging. Returns False when the agent
        has no session.
        """
        session = self._directory.session(name)
        if session is not None:
            session.log_frames(for_s)
        return session is not None

    def is_known(self, name: str) -> bool:
        """Returns whether an agent of that name has joined, or has been connected."""
        return name in self._entries or self._known.joined(name) is not None

    def is_connected(self, name: str) -> bool:
        """Returns whether an agent's link is up."""
        entry = self._entries.get(name)
        return entry is not None and entry.connected

    def is_expected(self, name: str) -> bool:
        """Returns whether an agent that has not connected yet may be about to: it joined, and this server has just
        started (`JUST_STARTED_S`).
        """
        just_started = time.monotonic() - self._started_s < JUST_STARTED_S
        return just_started and name not in self._entries and self._known.joined(name) is not None

    def as_offered(self, name: str, target: Target) -> Target:
        """Returns a service of ours under the name that an agent has for it; returns any other target as it is."""
        entry = self._entries.get(name)
        if entry is None or entry.node is None or not isinstance(target, ServiceTarget):
            return target
        return ServiceTarget(as_offered(target.name, entry.node.services))

    def away_since(self, name: str) -> datetime | None:
        """Returns when an agent's link last came up or went down; for one that is away that is since when. None when it
        has never been up here.
        """
        entry = self._entries.get(name)
        return entry.since if entry is not None else None

    def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        """Yields each change from now on, with the agent as it is after the change.

        Raises:
            FollowerTooSlow: changes were lost.
        """
        return self._changes.follow()

    # Public - for the accepting of sessions

    def took(self, name: str, session: TunnelSession, hello: tunnel_pb2.Hello, address: str) -> None:
        """Notes that an agent has a carrier now, with a new session or a resumed one, and tells those that follow."""
        entry = self._entries.setdefault(name, _Entry())
        entry.connected = True
        entry.since = entry.last_seen = datetime.now(UTC)
        # A copy, since a part of a message holds the memory of the whole.
        entry.node = tunnel_pb2.Node()
        entry.node.CopyFrom(hello.node)
        entry.version = hello.version
        entry.address = address
        self._directory.put(name, session)
        self._tell(Change.CONNECTED, name)

    def told(self, name: str, session: TunnelSession, node: tunnel_pb2.Node) -> None:
        """Takes what an agent says of its box while it is connected. Does nothing when another session took the place
        of this one.
        """
        entry = self._entries.get(name)
        if entry is not None and self._directory.has(name, session):
            entry.node = node
            self._tell(Change.TOLD, name)

    def lost(self, name: str, session: TunnelSession, reason: str) -> None:
        """Notes that a carrier of an agent is gone, and why. Does nothing when the agent has another one already."""
        entry = self._entries.get(name)
        if entry is None or session.attached or not self._directory.has(name, session):
            return
        if entry.connected:
            entry.connected = False
            entry.since = entry.last_seen = datetime.now(UTC)
            entry.reason = reason
            self._tell(Change.AWAY, name)

    def rejoined(self, name: str, error: TunnelError) -> None:
        """Closes the session of an agent's old key, since its name went to a new key. Does nothing when it has no
        session.
        """
        if (session := self._directory.session(name)) is not None:
            session.close(error)

    def removed(self, name: str, error: TunnelError) -> None:
        """Forgets an agent whose membership was taken away, closes its session at once, and tells those that follow."""
        self._entries.pop(name, None)
        if (session := self._directory.remove(name)) is not None:
            session.close(error)
        self._tell(Change.REMOVED, name)

    # Internal

    def _view(self, name: str) -> AgentView:
        entry = self._entries.get(name) or _Entry()
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
            reason=entry.reason,
        )

    def _tell(self, change: Change, name: str) -> None:
        if self._changes.followed:
            self._changes.tell((change, self._view(name)))
