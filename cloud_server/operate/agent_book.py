"""Lists every agent with its state: what is known of it now, beside what is kept of it over restarts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cloud_server.agents.agents import Agents, AgentView
from cloud_server.agents.facts import Fact
from cloud_server.trust.administration import ListedAgent
from cloud_server.trust.records import Sighting
from tunnel.aio.process.turns import Turns
from tunnel.core.wire.faults import FAULTS, REPLACED

CLONE_SHOWN = timedelta(days=1)
"""How long it is shown that a second process came with an agent's identity."""
UP, AWAY, NEVER_CAME, REVOKED, TAKEN_OVER = "up", "away", "never_came", "revoked", "replaced"


class Joined(Protocol):
    """The records of who joined; see `Administration`."""

    def agent_names(self) -> Sequence[str]:
        """Returns the names of all agents, also of the revoked."""
        ...

    def agent(self, name: str) -> ListedAgent | None:
        """Returns one agent; None for a name that none has."""
        ...


class LastSeen(Protocol):
    """The records of when agents were seen last, over restarts."""

    def get(self, name: str) -> Sighting | None:
        """Returns the last sighting of an agent; None when it never came."""
        ...


@dataclass(slots=True)
class Tally:
    """The counts of all agents that joined; the revoked are left out."""

    up: int = 0
    """How many agents are connected."""
    away: list[str] = field(default_factory=list)
    """The names of agents that are not connected, but were."""
    never_came: list[str] = field(default_factory=list)
    """The names of agents that never were connected."""
    facts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The names of the agents of which something is wrong, by the code of what is wrong."""

    @property
    def joined(self) -> int:
        """Returns how many agents joined."""
        return self.up + len(self.away) + len(self.never_came)


class AgentBook:
    """The source of the admin API's lists of agents."""

    def __init__(
        self,
        agents: Agents,
        joined: Joined,
        seen: LastSeen,
        told: Callable[[str], Sequence[Fact]],
    ) -> None:
        """Keeps where to look for what is known of agents.

        Args:
            agents: what is so now.
            joined: who joined, the revoked among them.
            seen: when each was there last.
            told: what the box of an agent told of itself that only it can know.
        """
        self._agents = agents
        self._joined = joined
        self._seen = seen
        self._told = told

    async def each(self) -> AsyncGenerator[object, None]:
        """Yields all agents, by name."""
        for name in sorted({*self._joined.agent_names(), *self._agents.names()}):
            yield self._show(name, self._joined.agent(name))

    async def tally(self) -> Tally:
        """Returns the counts of all agents."""
        tally, turns = Tally(), Turns()
        for name in self._agents.names():
            await turns.pause()
            seen = self._seen.get(name)
            if self._agents.is_connected(name):
                tally.up += 1
            elif seen is None and self._agents.away_since(name) is None:
                tally.never_came.append(name)
            else:
                tally.away.append(name)
            # Only codes that there are: what a box makes up is shown with that box, and is no warning of all.
            for code in {fact["code"] for fact in self._facts(name, seen)} & FAULTS.keys():
                tally.facts[code].append(name)
        return tally

    def one(self, name: str) -> dict[str, Any] | None:
        """Returns one agent as the admin API shows it; None for a name that nobody has or had."""
        listed = self._joined.agent(name)
        if listed is None and not self._agents.is_known(name):
            return None
        return self._show(name, listed)

    # Internal

    def _show(self, name: str, listed: ListedAgent | None) -> dict[str, Any]:
        view = self._agents.agent(name) or AgentView(name=name)
        seen = self._seen.get(name)
        state, since, reason = _standing(view, listed, seen)
        statistics = self._agents.statistics(name) if view.connected else None
        rtt_s = statistics.pacing.rtt_s if statistics is not None else 0.0
        record = listed.record if listed is not None else None
        validity = record.validity if record is not None else view.certificate
        now = datetime.now(UTC)
        return {
            "name": name,
            "state": state,
            "since": since,
            "last_seen": now
            if view.connected
            else _later(view.last_seen, seen.last_seen if seen is not None else None),
            "reason": reason or None,
            "address": view.address or (seen and seen.address) or None,
            "version": view.version or (seen and seen.version) or None,
            "rtt_s": round(rtt_s, 6) if rtt_s > 0 else None,
            "certificate_days_left": round(validity.days_left(now), 2) if validity is not None else None,
            "joined": record.joined if record is not None else view.joined,
            "labels": dict(view.node.labels) if view.node is not None else {},
            "streams": statistics.streams if statistics is not None else 0,
            "facts": self._facts(name, seen),
        }

    def _facts(self, name: str, seen: Sighting | None) -> list[dict[str, Any]]:
        """Returns what is wrong with an agent, though it may be connected: as the server saw, and as the box told."""
        facts: list[dict[str, Any]] = []
        if seen is not None and seen.replaced is not None and datetime.now(UTC) - seen.replaced < CLONE_SHOWN:
            text = f"a second process with its identity was turned away, from {seen.replaced_from}"
            facts.append({"code": REPLACED.code, "text": text, "since": seen.replaced})
        told = [fact for fact in self._told(name) if fact.until is None]
        return [*facts, *({"code": fact.code, "text": fact.text, "since": fact.since} for fact in told)]


def _standing(view: AgentView, listed: ListedAgent | None, seen: Sighting | None) -> tuple[str, datetime | None, str]:
    """Returns the state of an agent, since when it is so, and why it was down last."""
    record = listed.record if listed is not None else None
    if record is not None and record.revoked is not None:
        return REVOKED, record.revoked, record.reason or "its name was taken away"
    kept = seen.reason if seen is not None else ""
    if view.connected:
        return UP, view.since, view.reason or kept
    if seen is None and view.since is None:
        return NEVER_CAME, record.joined if record is not None else None, ""
    last = view.since or (seen.last_seen if seen is not None else None)
    if seen is not None and seen.replaced is not None and seen.replaced > (seen.came or last or seen.replaced):
        # The last that was heard of it is a quarrel of two processes, of which none is there.
        return TAKEN_OVER, seen.replaced, f"another process uses its identity, from {seen.replaced_from}"
    return AWAY, last, view.reason or kept or "it has not come back since this server was started"


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)
