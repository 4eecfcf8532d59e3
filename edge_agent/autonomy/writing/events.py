"""Queues the events that components of the node write while the API server is away, and writes them when it is back.

client-go drops an event on any answer that is an error (client-go v0.34 `tools/record`), so that those of an outage,
which are wanted most, would all be lost. They keep the times and names that they were made with.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

import structlog

from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.writing.replaying import NO_ROOM, Refusals, Send, Verdict
from tunnel.core.wire.faults import NOT_TOLD

SCOPE = "!events"
MAX_EVENTS = 1000
"""How many events wait while the API server is away."""
MAX_BYTES = 1024 * 1024
"""How many bytes they have."""
MAX_EVENT_BYTES = 64 * 1024
"""The longest event that is queued. Those of a kubelet have 1 kB."""

_log = structlog.get_logger("edge.autonomy")


class Event(NamedTuple):
    """An event that waits."""

    path: str
    """Of the list that it is written to."""
    content_type: str
    name: str
    body: bytes
    since: datetime | None
    """Since when it waits; None: it was kept by a build that did not write that."""


class Events:
    """The events that wait."""

    def __init__(self, keeper: Keeper) -> None:
        """Reads nothing yet."""
        self._keeper = keeper
        self._waiting: dict[int, Event] = {}
        """By number."""
        self.refusals = Refusals()
        self._number = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def restore(self, kept: Kept | None) -> None:
        """Takes what was on the disk."""
        for one in sorted(kept.objects if kept is not None else (), key=lambda one: one.version):
            head, _, body = one.raw.partition(b"\n")
            try:
                path, content_type, name, *since = json.loads(head)
                event = Event(path, content_type, name, body, datetime.fromisoformat(since[0]) if since else None)
            except ValueError:
                continue
            self._number = one.version
            self._waiting[one.version] = event
            self._bytes += len(body)

    @property
    def since(self) -> datetime | None:
        """Returns since when the one waits that has waited longest; None when nothing waits, or it is not known."""
        return next((event.since for event in self._waiting.values()), None)

    async def add(self, path: str, content_type: str, name: str, body: bytes) -> str:
        """Queues an event, and returns why that was not possible; empty when it will survive whatever comes.

        Args:
            path: of the list that it is written to, as it came.
            content_type: of its body.
            name: the event's.
            body: the event.
        """
        if len(body) > MAX_EVENT_BYTES:
            return f"it is longer than {MAX_EVENT_BYTES} bytes"
        self._number += 1
        since = datetime.now(UTC)
        number, event = self._number, Event(path, content_type, name, body, since)
        raw = json.dumps([path, content_type, name, since.isoformat()]).encode() + b"\n" + body
        oldest = self._in_the_way(len(body))
        gone = [("", _name(one)) for one in oldest]
        put = Stored("", _name(number), "", number, raw)
        trouble = await self._keeper.write(ScopeWrite(SCOPE, number, puts=[put], removed=gone), durable=True)
        if not trouble:
            for one in oldest:
                self.refusals.dropped[NO_ROOM] += self._forgotten(one)
            self._waiting[number] = event
            self._bytes += len(body)
        return trouble

    async def replay(self, send: Send) -> None:
        """Writes all events to the API server, oldest first.

        Raises:
            Unreached: it is away again, or refuses for now; what is left waits on.
        """
        refused = 0
        for number, event in list(self._waiting.items()):
            status = await send("POST", event.path, event.content_type, event.body)
            if status == 409:  # an earlier one of that name: this has its later count
                status = await send("PUT", f"{event.path}/{quote(event.name, safe='')}", event.content_type, event.body)
            verdict = self.refusals.verdict(number, status)
            if verdict is Verdict.LATER:
                refused += 1
                continue
            if verdict is Verdict.USELESS:
                _log.warning("an event was refused", code=NOT_TOLD.code, path=event.path, status=status)
            await self._forget(number)
        if refused:
            raise Unreached(f"the API server refuses {refused} events")

    # Internal

    def _in_the_way(self, room_bytes: int) -> list[int]:
        """Returns the oldest events without which there is room."""
        oldest, count, held_bytes = [], len(self._waiting), self._bytes
        for number, event in self._waiting.items():
            if count < MAX_EVENTS and held_bytes + room_bytes <= MAX_BYTES:
                break
            oldest.append(number)
            count, held_bytes = count - 1, held_bytes - len(event.body)
        return oldest

    def _forgotten(self, number: int) -> int:
        """Forgets an event, and returns how many that were."""
        self.refusals.forget(number)
        event = self._waiting.pop(number, None)
        if event is None:
            return 0
        self._bytes -= len(event.body)
        return 1

    async def _forget(self, number: int) -> None:
        self._forgotten(number)
        await self._keeper.write(ScopeWrite(SCOPE, self._number, removed=[("", _name(number))]))


# Internal


def _name(number: int) -> str:
    return f"{number:020d}"
