"""Serves `?watch=true`: sends changes as they happen, as objects or as Table rows, until the client goes or time is up.

What a watch says is made here. A `Sink` knows how it reaches the client: as lines of an answer, or as messages of a
WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunnel.kubeapi.history import Change
from tunnel.kubeapi.selectors import Selector
from tunnel.kubeapi.status import ApiError, Json
from tunnel.kubeapi.store import ObjectStore

DEFAULT_TIMEOUT_S = 3600
MAX_TIMEOUT_S = 24 * 3600
QUIET_S = 30.0
"""The seconds of silence after which a watch sends something: load balancers forget a connection that is silent for a
minute."""

CHANGES_AT_A_TIME = 16
"""How many changes are made into events before others have their turn: each costs some 100 us, and a box may change
hundreds of pods at once.
"""

Event = tuple[str, Json]


class Sink(Protocol):
    """The way to the client of a watch."""

    async def send(self, events: Sequence[Json]) -> None:
        """Sends events, and waits while the client is slow.

        Raises:
            StreamError: the client is gone.
        """
        ...

    async def say_nothing(self) -> None:
        """Sends something that is no event, to keep the connection in use.

        Raises:
            StreamError: the client is gone.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """The options of one watch, as its client asks for them."""

    resource: str
    kind: str
    group_version: str
    namespace: str | None
    """The only namespace to watch; None means all."""
    selector: Selector
    after: int | None
    """The version whose later changes are sent; None first sends the objects that there are."""
    bookmarks: bool
    initial_end: bool
    """Whether a bookmark marks the end of the objects that there were at the start (`sendInitialEvents`)."""
    from_now: bool = False
    """Whether the objects that there are at the start are left out, even though there is no version to begin at."""
    timeout_s: float
    shown: Callable[[Json], bool] | None = None
    """A function that tells whether the client may see an object; None when it may see all."""
    check: Callable[[], None] | None = None
    """A function that is called before changes are sent, and raises an ApiError to end the watch; None when only time
    ends it."""


class _Source:
    """Turns the store's changes into the events of one watch."""

    def __init__(self, store: ObjectStore, options: WatchOptions, present: Callable[[Json], Json]) -> None:
        self._store = store
        self._options = options
        self._present = present
        self._version = store.version if options.after is None else options.after
        self.behind = False
        """Whether more has happened than the last call of `next` told."""

    def first(self) -> list[Event]:
        """Returns an event for each object that there is; none for a watch that begins at a version, or from now."""
        options = self._options
        if options.after is not None or options.from_now:
            return []
        items = self._store.items(options.resource, options.namespace)
        events = [("ADDED", self._present(item)) for item in items if self._selected(item) is not None]
        if options.initial_end:
            events.append(self.bookmark({"k8s.io/initial-events-end": "true"}))
        return events

    def next(self) -> list[Event]:
        """Returns the events of what happened since the last call, of at most `CHANGES_AT_A_TIME` changes.

        Raises:
            ApiError: 410, the store no longer keeps all changes since then; or whatever `check` raises.
        """
        if self._options.check is not None:
            self._options.check()
        changes = self._store.changes_after(self._version, self._options.resource, CHANGES_AT_A_TIME)
        self.behind = len(changes) == CHANGES_AT_A_TIME
        self._version = changes[-1].version if self.behind else self._store.version
        return [event for change in changes if (event := self._event(change))]

    def bookmark(self, annotations: Json | None = None) -> Event:
        """Returns the event that says how far this watch has come, from where the client may go on later."""
        metadata: Json = {"resourceVersion": str(self._version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        options = self._options
        return "BOOKMARK", {"kind": options.kind, "apiVersion": options.group_version, "metadata": metadata}

    def _event(self, change: Change[Json]) -> Event | None:
        before, after = self._selected(change.before), self._selected(change.after)
        if after is not None:
            return ("ADDED" if before is None else "MODIFIED"), self._present(after)
        if before is None:
            return None
        # The last state carries the version of its end, or a client would go on from too early.
        last = self._present(before)
        return "DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(change.version)}}

    def _selected(self, item: Json | None) -> Json | None:
        shown = self._options.shown
        if item is None or not self._options.selector.matches(item) or (shown is not None and not shown(item)):
            return None
        namespace = self._options.namespace
        return item if namespace is None or item["metadata"].get("namespace") == namespace else None


async def serve_watch(
    sink: Sink,
    store: ObjectStore,
    options: WatchOptions,
    present: Callable[[Json], Json],
    to_table: Callable[[list[Json], bool], Json] | None,
) -> None:
    """Sends a watch to its client until its time is up, or its changes are no longer kept.

    Args:
        sink: the way to the client.
        store: the objects to watch.
        options: what the client asks for.
        present: makes of a stored object the one that is shown.
        to_table: makes a Table of rows, with its columns or without; None sends plain objects.

    Raises:
        StreamError: the client is gone.
    """
    source, form = _Source(store, options, present), _Form(to_table)
    changed = asyncio.Event()
    unsubscribe = store.subscribe(changed.set)
    try:
        await _stream(sink, source, options, changed, form)
    finally:
        unsubscribe()


# Internal


class _Form:
    """Writes the events of a watch as plain objects or as Tables."""

    def __init__(self, to_table: Callable[[list[Json], bool], Json] | None) -> None:
        self._to_table = to_table
        self._header = True

    def of(self, events: Iterable[Event]) -> list[Json]:
        """Returns the events as the JSON objects that are sent."""
        return [{"type": kind, "object": self._object(kind, item)} for kind, item in events]

    def _object(self, kind: str, item: Json) -> Json:
        if self._to_table is None or kind == "ERROR":
            return item
        header, self._header = self._header, False
        if kind == "BOOKMARK":
            return self._to_table([], header) | {"metadata": item["metadata"]}
        return self._to_table([item], header)


async def _stream(sink: Sink, source: _Source, options: WatchOptions, changed: asyncio.Event, form: _Form) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + options.timeout_s
    await sink.send(form.of(source.first()))
    while (now_s := loop.time()) < deadline_s:
        changed.clear()
        try:
            events = source.next()
        except ApiError as error:
            await sink.send(form.of([("ERROR", error.body())]))
            break
        if events:
            await sink.send(form.of(events))
        if source.behind:
            await asyncio.sleep(0)
            continue
        if not await _wait(changed, min(deadline_s, now_s + QUIET_S)) and loop.time() < deadline_s:
            await (sink.send(form.of([source.bookmark()])) if options.bookmarks else sink.say_nothing())


async def _wait(changed: asyncio.Event, until_s: float) -> bool:
    try:
        async with asyncio.timeout_at(until_s):
            return await changed.wait()
    except TimeoutError:
        return False
