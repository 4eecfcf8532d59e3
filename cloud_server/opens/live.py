"""Keeps the table of what is open, or being opened: the one account that status, kill, revocation and metrics read."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from cloud_server.agents.feed import Feed
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.route import Route
from cloud_server.trust.standing import Hold
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.exec_terms import ANY_TERMS
from tunnel.core.wire.target import Target


class Change(Enum):
    """A kind of change that can happen to an open."""

    OPENED = "opened"
    ENDED = "ended"


class Permitted(NamedTuple):
    """A route that a rule allows."""

    route: Route
    rule: str


class Bytes(NamedTuple):
    """How many bytes a front end's streams carried."""

    to_agent: int
    from_agent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenView:
    """The state of one open at a moment."""

    id: str
    trace_id: str
    since: datetime
    kind: str
    """The kind of the principal."""
    who: str
    groups: tuple[str, ...]
    frontend: str
    peer: str
    agent: str
    target: str
    resolved: str
    """The address that the agent dialled; empty while it has not answered, and for a service."""
    bytes_to_agent: int
    bytes_from_agent: int
    traffic_class: str
    rule: str


class LiveOpen:
    """One open, from the request to the end of its stream."""

    __slots__ = (
        "_loop", "agent", "ended_by", "hold", "id", "outcome", "permitted", "recorded", "request", "rule", "scope",
        "since", "started_s", "stream", "target", "terms", "tried",
    )  # fmt: skip

    def __init__(self, number: int, request: OpenRequest) -> None:
        self.id = str(number)
        self.request = request
        self.since = datetime.now(UTC)
        self.started_s = time.monotonic()
        self.permitted: list[Permitted] = []
        """The routes that may be tried, best first."""
        self.agent = request.route.agent if request.route is not None else request.via
        """The agent of the route in use, or of the one that was tried last."""
        self.target: Target | None = None
        """The target that the agent was asked for; None while none was."""
        self.rule = ""
        """The name of the rule that allowed the route, or refused the last one."""
        self.terms = ANY_TERMS
        """What that rule demands of the box, for an exec."""
        self.tried: list[str] = []
        """The routes that were tried in vain before, each with what came of it."""
        self.stream: Stream | None = None
        """The stream; None while it is being opened."""
        self.recorded = False
        """Whether the start of the open is in the audit log."""
        self.outcome: dict[str, object] = {}
        """What a front end adds to the record of the end."""
        self.ended_by: OpenRefused | None = None
        """Why this server ended the open; None when it did not."""
        self.scope: asyncio.Timeout | None = None
        """The timeout that the opening waits in; None when it is not being opened."""
        self.hold: Hold | None = None
        """The hold on what the caller showed; None when the open was refused before."""
        self._loop = asyncio.get_running_loop()

    @property
    def bytes_to_agent(self) -> int:
        """Returns how many bytes went to the agent so far."""
        return self.stream.statistics().bytes_sent if self.stream is not None else 0

    @property
    def bytes_from_agent(self) -> int:
        """Returns how many bytes came from the agent so far."""
        return self.stream.statistics().bytes_received if self.stream is not None else 0

    def opened(self) -> Stream:
        """Returns the stream of the open. The caller must know that there is one."""
        assert self.stream is not None
        return self.stream

    def end(self, error: OpenRefused) -> None:
        """Ends the open now: its stream is reset on both sides with this error, or its dial is cancelled. Does nothing
        when it was ended before.
        """
        if self.ended_by is not None:
            return
        self.ended_by = error
        if self.stream is not None:
            self.stream.abort(error.code, str(error), error.fault)
        elif self.scope is not None:
            self.scope.reschedule(self._loop.time())

    def view(self) -> OpenView:
        """Returns what is known of the open now."""
        request, principal = self.request, self.request.caller.principal
        return OpenView(
            id=self.id,
            trace_id=request.trace_id,
            since=self.since,
            kind=principal.kind.label,
            who=principal.name,
            groups=principal.groups,
            frontend=request.frontend,
            peer=request.peer,
            agent=self.agent,
            target=str(self.target or request.asked),
            resolved=self.stream.resolved_address if self.stream is not None else "",
            bytes_to_agent=self.bytes_to_agent,
            bytes_from_agent=self.bytes_from_agent,
            traffic_class=request.traffic_class.name.lower(),
            rule=self.rule,
        )


class LiveOpens:
    """All opens that are not over. A stream is over when both sides have all of its bytes, or it was reset."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._opens: dict[str, LiveOpen] = {}
        self._ended: defaultdict[str, Bytes] = defaultdict(lambda: Bytes(0, 0))
        """How many bytes the streams that are over carried, by front end."""
        self._changes: Feed[tuple[Change, OpenView]] = Feed()

    # Public

    def __len__(self) -> int:
        return len(self._opens)

    def __iter__(self) -> Iterator[LiveOpen]:
        return iter(list(self._opens.values()))

    def get(self, open_id: str) -> LiveOpen | None:
        """Returns an open by its id; None when it is over, or there was none."""
        return self._opens.get(open_id)

    def kill(self, open_id: str, reason: str) -> bool:
        """Ends one open because a person wants it. Returns whether there was one."""
        live = self._opens.get(open_id)
        if live is None:
            return False
        live.end(OpenRefused(reason, Code.KILLED))
        return True

    def end_where(self, predicate: Callable[[LiveOpen], bool], error: OpenRefused) -> int:
        """Ends all opens that `predicate` is true of, also those that are still being opened. Returns how many there
        were.
        """
        ending = [live for live in self._opens.values() if predicate(live)]
        for live in ending:
            live.end(error)
        return len(ending)

    def bytes_by_frontend(self) -> dict[str, Bytes]:
        """Returns how many bytes all streams carried until now, also those that run, by front end."""
        total = dict(self._ended)
        for live in self._opens.values():
            if live.stream is not None:
                total[live.request.frontend] = _plus(total.get(live.request.frontend), live.stream)
        return total

    def dialling_by_frontend(self) -> dict[str, int]:
        """Returns how many opens wait for an answer, by front end; 0 for a front end that had any before."""
        dialling = dict.fromkeys(self._ended, 0)
        for live in self._opens.values():
            frontend = live.request.frontend
            dialling[frontend] = dialling.get(frontend, 0) + (live.stream is None)
        return dialling

    def subscribe(self) -> AsyncIterator[tuple[Change, OpenView]]:
        """Yields changes from now on: what happened, and the open after it.

        Raises:
            FollowerTooSlow: changes were lost.
        """
        return self._changes.follow()

    # Public - for the door

    def begin(self, request: OpenRequest) -> LiveOpen:
        """Takes an open into the table, and returns it."""
        live = LiveOpen(next(self._numbers), request)
        self._opens[live.id] = live
        return live

    def opened(self, live: LiveOpen) -> None:
        """Tells those that follow that an open has its stream now."""
        if self._changes.followed:
            self._changes.tell((Change.OPENED, live.view()))

    def over(self, live: LiveOpen) -> None:
        """Takes an open out of the table; what it carried stays counted."""
        if self._opens.pop(live.id, None) is None:
            return
        if live.hold is not None:
            live.hold.release()
        frontend = live.request.frontend
        if live.stream is not None:
            self._ended[frontend] = _plus(self._ended[frontend], live.stream)
            if self._changes.followed:
                self._changes.tell((Change.ENDED, live.view()))


def _plus(carried: Bytes | None, stream: Stream) -> Bytes:
    to_agent, from_agent = carried or (0, 0)
    counts = stream.statistics()
    return Bytes(to_agent + counts.bytes_sent, from_agent + counts.bytes_received)
