"""The agents: who has joined, who is connected, and what changes."""

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
    reason: str = ""
    """Why its link was lost last; empty when it never was."""

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
    """All agents of this server."""

    def __init__(self, known: KnownAgents, directory: MemoryDirectory) -> None:
        """`directory` is told of each session that comes and goes."""
        self._known = known
        self._directory = directory
        self._entries: dict[str, _Entry] = {}
        self._changes: Feed[tuple[Change, AgentView]] = Feed()
        self._started_s = time.monotonic()

    # Public

    def agents(self) -> list[AgentView]:
        """Every agent that joined or is connected, by name."""
        return [self._view(name) for name in self.names()]

    def each(self) -> Iterator[AgentView]:
        """Every agent that joined or is connected, by name, each as it is when it is asked for."""
        return (self._view(name) for name in self.names())

    def names(self) -> list[str]:
        """Every agent that joined or is connected, in order."""
        return sorted(set(self._known.names()) | self._entries.keys())

    def agent(self, name: str) -> AgentView | None:
        """One agent; None when it never joined, or does no longer belong here."""
        return self._view(name) if self.is_known(name) else None

    def statistics(self, name: str) -> SessionStatistics | None:
        """Returns figures of an agent's session; None when it has none."""
        session = self._directory.session(name)
        return session.statistics() if session is not None else None

    def facts(self, name: str) -> list[Fact]:
        """Returns what the box of an agent told of itself that only it can know."""
        entry = self._entries.get(name)
        return facts_of(entry.node) if entry is not None else []

    def log_frames(self, name: str, for_s: float) -> bool:
        """Logs each frame of an agent's session for so many seconds, 0: no more; returns False when it has none."""
        session = self._directory.session(name)
        if session is not None:
            session.log_frames(for_s)
        return session is not None

    def is_known(self, name: str) -> bool:
        """Whether an agent of that name has joined, or has been connected."""
        return name in self._entries or self._known.joined(name) is not None

    def is_connected(self, name: str) -> bool:
        """Whether its link is up."""
        entry = self._entries.get(name)
        return entry is not None and entry.connected

    def is_expected(self, name: str) -> bool:
        """Whether an agent that has not come yet may be about to: it joined, and this server has just begun."""
        just_started = time.monotonic() - self._started_s < JUST_STARTED_S
        return just_started and name not in self._entries and self._known.joined(name) is not None

    def as_offered(self, name: str, target: Target) -> Target:
        """Returns a service of ours by the name that an agent has for it; any other target as it is."""
        entry = self._entries.get(name)
        if entry is None or entry.node is None or not isinstance(target, ServiceTarget):
            return target
        return ServiceTarget(as_offered(target.name, entry.node.services))

    def away_since(self, name: str) -> datetime | None:
        """Since when an agent's link is down; None when it has never been up here."""
        entry = self._entries.get(name)
        return entry.since if entry is not None else None

    def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        """Yields changes from now on.

        Raises:
            FollowerTooSlow: changes were lost.
        """
        return self._changes.follow()

    # Public - for the accepting of sessions

    def took(self, name: str, session: TunnelSession, hello: tunnel_pb2.Hello, address: str) -> None:
        """An agent has a carrier now, with a new session or a resumed one."""
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
        """An agent tells its box anew; nothing happens when another session took the place of this one."""
        entry = self._entries.get(name)
        if entry is not None and self._directory.has(name, session):
            entry.node = node
            self._tell(Change.TOLD, name)

    def lost(self, name: str, session: TunnelSession, reason: str) -> None:
        """A carrier is gone; nothing happens when the agent has another one already."""
        entry = self._entries.get(name)
        if entry is None or session.attached or not self._directory.has(name, session):
            return
        if entry.connected:
            entry.connected = False
            entry.since = entry.last_seen = datetime.now(UTC)
            entry.reason = reason
            self._tell(Change.AWAY, name)

    def rejoined(self, name: str, error: TunnelError) -> None:
        """An agent's name went to a new key: the session of the old one ends at once."""
        if (session := self._directory.session(name)) is not None:
            session.close(error)

    def removed(self, name: str, error: TunnelError) -> None:
        """An agent's membership was taken away: its session ends at once."""
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
