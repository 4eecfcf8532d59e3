"""What happened on this server, for whoever follows it: the last events, each with a number that grows by one.

The first number of a process is behind all of the process before it, so that a follower who names one of those is not
given other events under it (docs/decisions/0061-event-numbers-begin-at-the-time.md).

Nothing is kept for a follower but its place in the ring: one that reads too slowly, or comes too late, is told how many
events it missed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from cloud_server.agents.agents import AgentView
from tunnel.aio.identity.validity import Watched
from tunnel.aio.operate.desired_state import Reloaded
from tunnel.core.wire.errors import Code, TunnelError
from tunnel.core.wire.faults import AGENT_REVOKED
from tunnel.core.wire.host_port import split_host_port

MAX_EVENTS = 10_000
"""How many events are kept, which take some 4 MB. A restart makes an event of each agent, and must not push out what
went before.
"""
MAX_TEXT_CHARS = 300
FOLD_S = 60.0
"""Seconds after which the same is told again: a box that is turned away comes back and back."""
MAX_FOLDED = 4096
LOST = "lost"
"""The kind of the event that stands where events are missing."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event: something that happened, and when."""

    seq: int
    time: datetime
    kind: str
    agent: str
    """The name of the agent that it is about; empty when it is about none."""
    text: str

    def as_json(self) -> dict[str, Any]:
        """Returns the event as the admin API shows it."""
        return {
            "seq": self.seq, "time": self.time, "kind": self.kind, "agent": self.agent or None, "text": self.text,
        }  # fmt: skip


def begin_now() -> int:
    """Returns a number that no earlier process of this server has come to: the milliseconds of Unix time.

    A process would have to see 1,000 events in each second of its life to come so far.
    """
    return time.time_ns() // 1_000_000


class EventBook:
    """The ring of the last events, and the wait for more."""

    def __init__(self, begin: int, max_events: int = MAX_EVENTS) -> None:
        """Knows no events yet.

        Args:
            begin: the number before that of the first event; see `begin_now`.
            max_events: how many of the last are kept.
        """
        self._events: deque[Event] = deque(maxlen=max_events)
        self._begin = begin
        self._seq = begin
        self._news = asyncio.Event()
        self._folded: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        """The time when each event that may come again and again was told last."""

    # Public

    def tell(self, kind: str, text: str, agent: str = "") -> None:
        """Adds one event, and wakes those that follow."""
        self._seq += 1
        self._events.append(Event(self._seq, datetime.now(UTC), kind, agent, text[:MAX_TEXT_CHARS]))
        self._news.set()
        self._news = asyncio.Event()

    def since(self, seq: int) -> list[Event]:
        """Returns what came behind an event, oldest first; the first of it says so where some of that is lost.

        `seq`: the number of the event; 0 for all that is kept.
        """
        if seq == 0:
            seq = self._begin
        elif not self._begin <= seq <= self._seq:  # above it: the clock was ahead when that process began
            text = "the server was started anew: what it did before is not known any more"
            return [self._missing(self._begin, text), *self.since(0)]
        first = self._seq - len(self._events) + 1
        found = list(takewhile(lambda event: event.seq > seq, reversed(self._events)))[::-1]
        if seq + 1 < first:
            missed = first - seq - 1
            return [self._missing(first - 1, f"{missed} event{'s are' if missed > 1 else ' is'} lost"), *found]
        return found

    async def follow(self, seq: int) -> AsyncGenerator[object, None]:
        """Yields the events behind number `seq` as JSON, and then each that comes."""
        while True:
            news = self._news
            for event in self.since(seq):
                yield event.as_json()
                seq = event.seq
            if news is self._news:
                await news.wait()

    # Public - what is told

    def agent_changed(self, agent: AgentView, *, first: bool) -> None:
        """Adds that an agent came or went. `first` says that it came for the first time since it joined."""
        if agent.connected:
            text = f"{'came for the first time' if first else 'is back'}, from {agent.address}"
            self.tell("back", f"{text}, version {agent.version}", agent.name)
        else:
            self.tell("away", agent.reason or "its link is down", agent.name)

    def joined(self, name: str, anew: bool) -> None:
        """Adds that a box joined. `anew` says that the name was another key's before."""
        self.tell("joined", "joined anew, with another key" if anew else "joined", name)

    def lost_name(self, name: str, error: TunnelError) -> None:
        """Adds that an agent's name was taken away."""
        self.tell("revoked" if error.fault is AGENT_REVOKED else "forgotten", str(error), name)

    def refused(self, name: str, address: str, error: TunnelError) -> None:
        """Adds that an agent was turned away; the same again is added only after FOLD_S."""
        kind = "replaced" if error.code is Code.REPLACED else "refused"
        host, _ = split_host_port(address)
        self._tell_folded(kind, f"turned away at {host}: {error.fault.code}: {error}", name)

    def reloaded(self, one: Reloaded) -> None:
        """Adds that the configuration was read, or could not be."""
        if one.fault:
            self.tell("config", f"the file cannot be used, the configuration before it stays: {one.fault}")
        else:
            restart = f"; only a restart applies: {', '.join(one.needs_restart)}" if one.needs_restart else ""
            self.tell("config", f"generation {one.generation}: {', '.join(one.changed)}{restart}")

    def expiry(self, certificate: Watched) -> None:
        """Adds that the end of a certificate is near."""
        self.tell("expiry", certificate.told(datetime.now(UTC)))

    # Internal

    def _missing(self, seq: int, text: str) -> Event:
        return Event(seq, datetime.now(UTC), LOST, "", text)

    def _tell_folded(self, kind: str, text: str, agent: str) -> None:
        key, now_s = (kind, text, agent), time.monotonic()
        if now_s - self._folded.get(key, float("-inf")) < FOLD_S:
            return
        self._folded[key] = now_s
        self._folded.move_to_end(key)
        while len(self._folded) > MAX_FOLDED:
            self._folded.popitem(last=False)
        self.tell(kind, text, agent)
