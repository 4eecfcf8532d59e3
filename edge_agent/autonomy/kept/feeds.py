"""All that is kept of the API on this node: the scopes that are followed, and single objects that were asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import structlog

from edge_agent.autonomy.asks import RESERVED, Scope, scope_of
from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.feed import OBJECT_BYTES, Feed
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.upstream import Upstream
from tunnel.aio.process import malloc
from tunnel.aio.process.tasks import TaskOwner
from tunnel.core.wire.faults import BUG, SCOPE_NOT_KEPT
from tunnel.kubeapi.replica import Item

UNUSED_S = 24 * 3600.0
"""Seconds after which a scope that nobody asks for any more is forgotten, while the API server is reached."""
SWEEP_S, FIRST_SWEEP_S = 600.0, 30.0
MAX_PASSED = 100
"""How many scopes without room are named, and how many that were asked for in vain."""
AFTER_BUG_S = 30.0
"""Seconds after which a scope that could not be followed, for a fault of ours, is followed again."""

_log = structlog.get_logger("edge.autonomy")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLimits:
    """How much may be kept."""

    scopes: int = 1000
    """How many scopes and single objects. A kubelet has one for each Secret and ConfigMap that its pods name."""
    scope_bytes: int = 16 * 1024 * 1024
    """The most memory of one scope."""
    total_bytes: int = 48 * 1024 * 1024
    """The most memory of all."""


class Single(NamedTuple):
    """One object as the API server answered it when it was asked for last."""

    api_version: str
    kind: str
    item: Item


class Feeds:
    """What is kept."""

    def __init__(
        self,
        keeper: Keeper,
        upstream_of: Callable[[str], Upstream],
        limits: KeptLimits,
        view_of: Callable[[Feed], Callable[[Item], Item] | None] = lambda _feed: None,
    ) -> None:
        """Reads nothing yet.

        Args:
            keeper: the disk.
            upstream_of: returns the API server for an identity.
            limits: how much may be kept.
            view_of: returns how the objects of a scope are shown; see `Feed.view`.
        """
        self._keeper = keeper
        self._upstream_of = upstream_of
        self._limits = limits
        self._view_of = view_of
        self._feeds: dict[Scope, Feed] = {}
        self._by_resource: dict[tuple[str, ...], list[Feed]] = {}
        self._tasks = TaskOwner("feeds")
        self._running: dict[Scope, asyncio.Task[None]] = {}
        self._singles: dict[Scope, Single] = {}
        self._asked_s: dict[Scope, float] = {}
        """When each of these was asked for last, on the loop's clock."""
        self._passed: set[Scope] = set()
        """The scopes for which there was no room."""
        self._missing: dict[Scope, datetime] = {}
        """The scopes that were asked for while the API server is away, and since when."""

    async def open(self, found: Mapping[str, Kept]) -> None:
        """Takes what was on the disk, by the names of scopes, and begins to keep it current."""
        for name, kept in found.items():
            try:
                scope = scope_of(name)
                about = json.loads(kept.about)
            except ValueError:
                await self._keeper.drop(name)
                continue
            if len(about) == 3:
                self._restore_single(scope, about, kept)
                continue
            feed = self._made(scope)
            if feed.restore(kept):
                self._start(feed)
            else:
                await self._keeper.drop(name)
        self._tasks.spawn("sweep", self._sweep())

    async def aclose(self) -> None:
        """Ends all watches of the API server."""
        await self._tasks.aclose()

    # What is asked

    @property
    def all(self) -> list[Feed]:
        """Returns the scopes that are followed."""
        return list(self._feeds.values())

    @property
    def passed(self) -> list[Scope]:
        """Returns the scopes that are not kept, for want of room."""
        return list(self._passed)

    @property
    def missing(self) -> dict[Scope, datetime]:
        """Returns what was asked for and is not kept since the API server is away, and when it was asked for first."""
        return dict(self._missing)

    @property
    def held_bytes(self) -> int:
        """Returns the memory of all that is kept."""
        return self._single_bytes() + sum(feed.all_bytes for feed in self._feeds.values())

    @property
    def singles(self) -> int:
        """Returns how many single objects are kept."""
        return len(self._singles)

    def find(self, scope: Scope) -> Feed | None:
        """Returns a scope that is followed; None when it is not."""
        feed = self._feeds.get(scope)
        if feed is not None:
            feed.used_s = asyncio.get_running_loop().time()
        return feed

    def want(self, scope: Scope) -> Feed | None:
        """Returns a scope, which is followed from now on; None when there is no room for it."""
        feed = self.find(scope)
        if feed is not None:
            return feed
        if not self._has_room(scope.who):
            if scope not in self._passed and len(self._passed) < MAX_PASSED:
                text = f"{len(self._feeds) + len(self._singles)} parts with {self.held_bytes} bytes are kept already"
                _log.warning(
                    "a part of the API is not kept", code=SCOPE_NOT_KEPT.code, scope=scope.spoken(), reason=text
                )
                self._passed.add(scope)
            return None
        feed = self._made(scope)
        self._start(feed)
        return feed

    def object(self, named: Scope) -> tuple[Single, Feed | None] | None:
        """Returns the object that a scope of one name is about, and the scope that it is from, if it is followed there;
        None when it is not kept.
        """
        name = named.field_selector.partition("=")[2]
        key = (named.namespace, name)
        for feed in self._around(named):
            item = feed.replica.get(key)
            if item is not None:
                return Single(feed.api_version, feed.kind, item), feed
        single = self._singles.get(named)
        if single is not None:
            self._asked_s[named] = asyncio.get_running_loop().time()
        return (single, None) if single is not None else None

    def kept_of(self, group: str, version: str, resource: str) -> Iterator[tuple[Scope, Item]]:
        """Yields all objects of a resource that are kept, whoever asked for them; some more than once."""
        wanted = (group, version, resource)
        for feed in self._feeds.values():
            if (feed.scope.group, feed.scope.version, feed.scope.resource) == wanted and feed.is_complete:
                for item in feed.replica.items(lambda _: True):
                    yield feed.scope, item
        for scope, single in self._singles.items():
            if (scope.group, scope.version, scope.resource) == wanted:
                yield scope, single.item

    def is_gone(self, named: Scope) -> bool:
        """Returns whether it is known that there is no such object: a scope that shows all of them does not have it."""
        key = (named.namespace, named.field_selector.partition("=")[2])
        return any(
            feed.replica.get(key) is None
            for feed in self._around(named)
            if feed.scope.field_selector in ("", named.field_selector) and not feed.scope.label_selector
        )

    async def retire(self, scope: Scope) -> None:
        """Forgets a scope if nobody watches it, since another one shows the same."""
        feed = self._feeds.get(scope)
        if feed is not None and not feed.watchers:
            await self._drop(feed)

    def miss(self, scope: Scope) -> None:
        """Takes that something was asked for which has no answer here."""
        if scope in self._missing or len(self._missing) >= MAX_PASSED:
            return
        self._missing[scope] = datetime.now(UTC)
        reason = "it was asked for, and was not listed as a whole before the API server was away"
        _log.warning("a part of the API is not kept", code=SCOPE_NOT_KEPT.code, scope=scope.spoken(), reason=reason)

    def miss_nothing(self) -> None:
        """Takes that the API server is back."""
        self._missing.clear()

    def trust_kept(self, who: str = "") -> None:
        """Takes that the API server is away, for one identity or for all: what it refused last is not known to be
        refused still.
        """
        for feed in self._feeds.values():
            if who in ("", feed.scope.who):
                feed.trust_kept()

    async def remember(self, named: Scope, single: Single) -> None:
        """Keeps one object as it was answered, unless it is followed anyhow."""
        before = self._singles.get(named)
        if before is not None and before.item.version == single.item.version:
            return
        if before is None and (not self._has_room(named.who) or self.object(named) is not None):
            return
        self._singles.pop(named, None)
        self._singles[named] = single  # at the end: the first ones were not asked for longest
        self._asked_s[named] = asyncio.get_running_loop().time()
        item, about = single.item, json.dumps(["get", single.api_version, single.kind])
        namespace, name = item.key
        stored = Stored(namespace, name, item.metadata.uid, item.version, item.raw)
        await self._keeper.write(
            ScopeWrite(named.text(), item.version, puts=[stored], anew=True, is_secret=named.is_secret, about=about)
        )

    async def forget(self, named: Scope) -> None:
        """Forgets one object, since the API server says that there is none."""
        self._asked_s.pop(named, None)
        if self._singles.pop(named, None) is not None:
            await self._keeper.drop(named.text())

    # Internal

    def _around(self, named: Scope) -> list[Feed]:
        """Returns the complete scopes in which an object would be, or might be."""
        return [
            feed
            for feed in self._by_resource.get(_resource(named), ())
            if feed.scope.namespace in ("", named.namespace) and feed.is_complete
        ]

    def _made(self, scope: Scope) -> Feed:
        room = partial(self._has_bytes, scope.who)
        feed = Feed(scope, self._upstream_of(scope.who), self._keeper, self._limits.scope_bytes, room)
        feed.view = self._view_of(feed)
        self._feeds[scope] = feed
        self._by_resource.setdefault(_resource(scope), []).append(feed)
        self._passed.discard(scope)
        return feed

    def _start(self, feed: Feed) -> None:
        self._running[feed.scope] = self._tasks.spawn(feed.scope.spoken(), self._run(feed))

    async def _run(self, feed: Feed) -> None:
        while True:
            try:
                await feed.run()
                break
            except Exception as error:  # noqa: BLE001 - no answer may end a part of the node for good
                _log.error("a list is asked for anew", code=BUG.code, scope=feed.scope.spoken(), exc_info=error)
            await asyncio.sleep(AFTER_BUG_S)
        await self._drop(feed)  # it was refused for long

    async def _drop(self, feed: Feed) -> None:
        if self._feeds.pop(feed.scope, None) is not None:
            self._by_resource[_resource(feed.scope)].remove(feed)
        task = self._running.pop(feed.scope, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task})
        feed.close()
        if feed.scope not in self._feeds:  # else it is wanted again by now
            await self._keeper.drop(feed.scope.text())

    def _restore_single(self, scope: Scope, about: list[str], kept: Kept) -> None:
        try:
            (stored,) = kept.objects
            item = scope.codec.read_item(stored.raw)
        except ValueError:
            return
        self._singles[scope] = Single(about[1], about[2], item)
        self._asked_s[scope] = asyncio.get_running_loop().time()

    def _has_room(self, who: str) -> bool:
        """Returns whether one more part may be kept. Users together have half of the room, and each an eighth, so that
        nobody takes that of the node.
        """
        if who not in RESERVED:
            users = [feed.scope.who for feed in self._feeds.values() if feed.scope.who not in RESERVED]
            if len(users) >= self._limits.scopes // 2 or users.count(who) >= self._limits.scopes // 8:
                return False
        return len(self._feeds) + len(self._singles) < self._limits.scopes and self._has_bytes(who, 0)

    def _has_bytes(self, who: str, more_bytes: int) -> bool:
        """Returns whether an identity may take so many bytes more. The node has half of all, with what is shared, and
        its users have the other half.
        """
        is_node = who in RESERVED
        held = sum(feed.all_bytes for feed in self._feeds.values() if (feed.scope.who in RESERVED) is is_node)
        if is_node:  # it alone has single objects
            held += self._single_bytes()
        return held + more_bytes <= self._limits.total_bytes // 2

    def _single_bytes(self) -> int:
        return sum(len(single.item.raw) + OBJECT_BYTES for single in self._singles.values())

    async def _sweep(self) -> None:
        """Forgets scopes that nobody asks for any more, writes versions that are due, and gives back the memory that
        lists took while they were read: a list is there four times then.
        """
        loop, pause_s = asyncio.get_running_loop(), FIRST_SWEEP_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = SWEEP_S
            await asyncio.to_thread(malloc.give_back)
            await self._keeper.write_versions()
            is_reached = any(feed.is_live for feed in self.all)
            for feed in self.all:
                if is_reached and not feed.watchers and loop.time() - feed.used_s > UNUSED_S:
                    await self._drop(feed)
            if is_reached:
                for named in [one for one in self._singles if loop.time() - self._asked_s[one] > UNUSED_S]:
                    await self.forget(named)


# Internal


def _resource(scope: Scope) -> tuple[str, ...]:
    return scope.who, scope.group, scope.version, scope.resource, scope.encoding
