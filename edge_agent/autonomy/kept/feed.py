"""Keeps one scope current: lists it once, watches it from then on, and goes on from where it was after a cut.

1. What was on the disk is shown at once, under its old version, and the watch goes on from there.
2. Each change is written before it is shown. So a client never knows more than what is still there after the process
   was killed. When the disk takes nothing, changes are shown all the same, and the scope says that it is not kept.
3. When the API server has forgotten the version (410), all is listed anew, and only what differs is shown.
4. An answer that refuses (401, 403, 404) is the truth of the API server. Requests then go there, one by one, while it
   is reached. What is kept stays for REFUSED_S: an API server that has just started refuses what it will soon allow,
   and is not believed at once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from edge_agent.autonomy.asks import Scope
from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.upstream import Gone, Refused, TooLarge, Unfit, Upstream
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.faults import SCOPE_NOT_KEPT
from tunnel.kubeapi.codecs import Told
from tunnel.kubeapi.replica import HISTORY_BYTES, Item, Replica, version_of

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.8, 30.0
"""The seconds before a list or a watch that failed is tried again, at first and in the end; as in client-go v0.34
(`tools/cache/reflector.go`).
"""
SHORT_S = 1.0
"""Seconds below which a watch that brought nothing has failed."""
GOOD_S = 10.0
"""Seconds that a watch must have run for its failure to count as the first. client-go asks again at once where it has
run for more than one: a balancer in front of the API server may cut all connections once a minute.
"""
WATCH_S = (300.0, 600.0)
"""How many seconds a watch is asked for, chosen at random between these, as in client-go."""
UNFIT_S = 3600.0
"""Seconds after which a scope that could not be kept is looked at again."""
REFUSED_S = 600.0
"""Seconds after which a scope that is refused all the time is forgotten."""
ONE_HISTORY_BYTES = 128 * 1024
"""How much of the past of a single object is kept, of which there may be hundreds."""
OBJECT_BYTES = 400
"""The memory of an object beside its bytes."""

MAX_LISTS = 32
SAME_PEER_S = 600.0
"""Seconds for which a connection is known to be the client's that was shown a list by it."""
LISTED_S = 10.0
"""Seconds within which a watch by another connection is taken for that of the client that was shown the list."""

_log = structlog.get_logger("edge.autonomy")


class Feed:
    """One scope: its replica, and what keeps it current."""

    def __init__(
        self,
        scope: Scope,
        upstream: Upstream,
        keeper: Keeper,
        max_bytes: int,
        has_room: Callable[[int], bool] = lambda _more_bytes: True,
    ) -> None:
        """Asks for nothing yet.

        Args:
            scope: what it shows.
            upstream: the API server, with the rights of the scope's identity.
            keeper: writes it to the disk.
            max_bytes: how much memory its objects may take.
            has_room: whether so many bytes more are within what all of its kind may take together.
        """
        self.scope = scope
        self.replica = Replica(ONE_HISTORY_BYTES if scope.is_single else HISTORY_BYTES)
        self.api_version = ""
        self.list_kind = ""
        self.is_kept = False
        """Whether the disk has it as it is shown."""
        self._current_s: float | None = asyncio.get_running_loop().time()
        """When it was known last to be current, on the loop's clock; None while its watch runs."""
        self.trouble = ""
        """Why it cannot be answered from here, or is not kept; empty when all is well."""
        self.refused: Refused | None = None
        """What the API server said instead of a list."""
        self.used_s = asyncio.get_running_loop().time()
        """When somebody asked for it last, on the loop's clock."""
        self.watchers = 0
        """How many watches of it are open."""
        self.held_bytes = 0
        self.view: Callable[[Item], Item] | None = None
        """How objects are shown that are known better on the node; None: as they came."""
        self._hidden: dict[tuple[str, str], Item] = {}
        """The objects that are shown in another way, as they came."""
        self._lists: dict[str, _ShownList] = {}
        """By client, the list that it was shown last."""
        self._upstream = upstream
        self._keeper = keeper
        self._max_bytes = max_bytes
        self._has_room = has_room
        self._name = scope.text()
        self._refused_since_s: float | None = None
        self._settled = asyncio.Event()

    # What others ask

    @property
    def is_complete(self) -> bool:
        """Returns whether it was listed as a whole once, and kept current while that was possible."""
        return self.replica.version is not None

    @property
    def is_live(self) -> bool:
        """Returns whether its watch runs."""
        return self._current_s is None

    @property
    def stale_s(self) -> float:
        """Returns for how many seconds it may have been out of date; 0 while its watch runs. What a restart found on
        the disk counts from the restart, unless `stale_for` says more.
        """
        return 0.0 if self._current_s is None else asyncio.get_running_loop().time() - self._current_s

    def stale_for(self, seconds: float) -> None:
        """Takes that it was out of date for so long when this process began."""
        if self._current_s is not None:
            self._current_s -= seconds

    @property
    def kind(self) -> str:
        """Returns the kind of its objects."""
        return self.list_kind.removesuffix("List")

    @property
    def is_altered(self) -> bool:
        """Returns whether some objects are shown otherwise than they came."""
        return bool(self._hidden)

    @property
    def altered(self) -> list[Item]:
        """Returns the objects that are shown otherwise, as they came."""
        return list(self._hidden.values())

    def note_list(self, client: str) -> None:
        """Takes that a client was shown all objects as they are now."""
        assert self.replica.version is not None
        now_s = asyncio.get_running_loop().time()
        self._lists.pop(client, None)
        self._lists[client] = _ShownList(self.replica.version, self.replica.position(None), now_s)
        while len(self._lists) > MAX_LISTS:
            del self._lists[next(iter(self._lists))]

    def listed_at(self, client: str, version: int) -> int | None:
        """Returns the position in the history at which a client was shown all objects, if the version that it had then
        is this one; None when it was not.

        An object that is shown otherwise keeps its version. So of who comes with that version it is not known whether
        they have seen it so; of who was shown the list just now it is, by the same connection or by another.
        """
        now_s = asyncio.get_running_loop().time()
        known = self._lists.get(client)
        if known is not None and known.version == version and now_s - known.at_s < SAME_PEER_S:
            return known.position
        # By which of the same reader's connections is not known, and what is told twice does no harm.
        reader = client.partition(" ")[2]
        recent = [one for name, one in self._lists.items() if name.partition(" ")[2] == reader]
        recent = [one for one in recent if one.version == version and now_s - one.at_s < LISTED_S]
        return min((one.position for one in recent), default=None)

    @property
    def all_bytes(self) -> int:
        """Returns the memory of its objects and of their past."""
        return self.held_bytes + self.replica.history_bytes

    async def settled(self) -> None:
        """Waits until it is complete, or an attempt to list it has failed."""
        await self._settled.wait()

    # Life

    def restore(self, kept: Kept) -> bool:
        """Takes what was on the disk, and returns whether that could be used."""
        codec = self.scope.codec
        try:
            self.api_version, self.list_kind = json.loads(kept.about)
            items = [codec.read_item(one.raw) for one in kept.objects]
        except ValueError:
            return False
        self._fill(kept.version, items)
        self.is_kept = True
        return True

    async def run(self) -> None:
        """Keeps it current until it is cancelled, or was refused for so long that it is forgotten."""
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            await self._upstream.ready()
            if not self.is_complete and self.refused is None:
                self._settled.clear()
            began_s = loop.time()
            try:
                if await self._advance() or loop.time() - began_s > SHORT_S:
                    failures = 0
                    continue
                failures += 1  # a watch that ends at once, which client-go waits after as well
            except Refused as error:
                failures += 1
                if self._is_forgotten(error):
                    return
            except Unfit as error:
                self._say(str(error))
                self.close()
                await self._keeper.drop(self._name)
                failures = 0
                await asyncio.sleep(UNFIT_S)
                continue
            except (StreamError, ValueError, Gone) as error:
                failures = 1 if self.is_live and loop.time() - began_s > GOOD_S else failures + 1
                self._settled.set()  # nobody waits for the next attempt
                _log.debug("a list or a watch ended", scope=self.scope.spoken(), reason=str(error))
            finally:
                if self.is_live:
                    self._current_s = loop.time()
            pause_s = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), LONGEST_PAUSE_S)
            await self._upstream.pause(pause_s * (1 + random.random()))  # noqa: S311 - not a secret

    def trust_kept(self) -> None:
        """Takes that the API server is away: what it refused last is not known to be refused still."""
        self.refused = self._refused_since_s = None

    def close(self) -> None:
        """Answers nothing any more, and ends the watches of it."""
        shown, self.replica = self.replica, Replica()
        self.held_bytes, self.is_kept = 0, False
        self._hidden.clear()
        self._lists.clear()
        shown.wake()
        self._settled.set()

    def show_anew(self, mention: bytes = b"") -> None:
        """Shows objects as `view` sees them now, those of them that have these bytes in them."""
        if self.view is None or not self.is_complete:
            return
        now_s = asyncio.get_running_loop().time()
        for item in self.replica.items(lambda item: mention in item.raw):
            shown = self._seen(self._hidden.get(item.key, item))
            if shown.raw != item.raw:
                self.replica.alter(shown, now_s)

    # Internal

    def _seen(self, item: Item) -> Item:
        """Returns an object as it is shown, and remembers how it came."""
        shown = self.view(item) if self.view is not None else item
        if shown is item:
            self._hidden.pop(item.key, None)
        else:
            self._hidden[item.key] = item
        return shown

    async def _list(self, version: str) -> None:
        listed = await self._upstream.fetch(self.scope, version, self._max_bytes)
        if listed.more:
            raise Unfit("the list comes in several pages, which was not asked for")
        number = version_of(listed.version)
        self._check_size(listed.items)
        if not self._has_room(_bytes_of(listed.items) - self.held_bytes):
            raise TooLarge("all that is kept takes more than it may together")
        self.api_version, self.list_kind = listed.api_version, listed.kind
        await self._write(_whole(self.scope, number, listed.items, self._about()))
        self._fill(number, listed.items)

    def _fill(self, version: int, items: list[Item]) -> None:
        self.refused, self._refused_since_s = None, None
        self._hidden.clear()
        self.replica.fill(version, [self._seen(item) for item in items], asyncio.get_running_loop().time())
        self.held_bytes = _bytes_of(items)
        self._settled.set()

    async def _advance(self) -> bool:
        """Lists if that is due, and watches to the end of the watch. Returns whether that has brought anything.

        Raises:
            Gone: the API server has forgotten its own list already.
        """
        if self.replica.version is None:
            await self._list("0")
        try:
            return await self._watch()
        except Gone:
            await self._list("")
        return await self._watch()

    async def _watch(self) -> bool:
        assert self.replica.version is not None
        seconds = random.uniform(*WATCH_S)  # noqa: S311 - not a secret
        async with self._upstream.watch(self.scope, self.replica.version, seconds) as events:
            self._current_s = None
            self.refused, self._refused_since_s = None, None
            told = False
            async for batch in events:
                await self._take(batch)
                told = True
            return told

    async def _take(self, batch: list[Told]) -> None:
        """Takes events that came together: writes them, and then shows them.

        Raises:
            Gone: the API server has forgotten the version.
            Refused: it ends the watch with another error.
            ValueError: an event makes no sense.
        """
        reached, error = self.replica.version or 0, None
        changed: dict[tuple[str, str], Told] = {}
        for number, told in enumerate(batch):
            if told.kind == "ERROR":
                error, batch = told.error or {}, batch[:number]
                break
            if told.item is not None:
                changed.pop(told.item.key, None)
                changed[told.item.key] = told
                reached = max(reached, told.item.version)
            elif told.kind == "BOOKMARK":
                reached = max(reached, version_of(told.version))
        if changed:
            await self._keep(reached, changed.values())
            self._show(told for told in batch if told.item is not None)
        if reached > (self.replica.version or 0):
            self.replica.reached(reached)
        if not changed and self.is_kept:
            self._keeper.note_version(ScopeWrite(self._name, reached, about=self._about(), extends=True))
        if error is not None:
            code = error.get("code")
            if code == 410:
                raise Gone
            raise Refused(code if isinstance(code, int) else 500, str(error.get("message", "")))
        if self.held_bytes > self._max_bytes:
            raise TooLarge(self._too_large())
        if changed and not self._has_room(0):
            raise TooLarge("all that is kept takes more than it may together")

    async def _keep(self, version: int, changed: Iterable[Told]) -> None:
        if not self.is_kept:  # the disk has an older state, on which these changes do not fit
            known = {item.key: self._hidden.get(item.key, item) for item in self.replica.items(lambda _: True)}
            for told in changed:
                assert told.item is not None
                if told.kind == "DELETED":
                    known.pop(told.item.key, None)
                else:
                    known[told.item.key] = told.item
            await self._write(_whole(self.scope, version, known.values(), self._about()))
            return
        puts = [told.item for told in changed if told.item is not None and told.kind != "DELETED"]
        gone = [told.item.key for told in changed if told.item is not None and told.kind == "DELETED"]
        write = ScopeWrite(
            self._name,
            version,
            puts=[_stored(item) for item in puts],
            removed=gone,
            about=self._about(),
            is_secret=self.scope.is_secret,
            extends=True,
        )
        await self._write(write)

    def _show(self, events: Iterable[Told]) -> None:
        now_s = asyncio.get_running_loop().time()
        for told in events:
            item = told.item
            assert item is not None
            before = self._hidden.get(item.key) or self.replica.get(item.key)
            if told.kind == "DELETED":
                self._hidden.pop(item.key, None)
                self.replica.remove(item.key, item.version, now_s)
                after_bytes = 0
            else:
                self.replica.put(self._seen(item), now_s)
                after_bytes = len(item.raw) + OBJECT_BYTES
            self.held_bytes += after_bytes - (len(before.raw) + OBJECT_BYTES if before is not None else 0)

    async def _write(self, write: ScopeWrite) -> None:
        trouble = await self._keeper.write(write)
        self.is_kept = not trouble
        self._say(trouble)

    def _check_size(self, items: list[Item]) -> None:
        if _bytes_of(items) > self._max_bytes:
            raise TooLarge(self._too_large())

    def _too_large(self) -> str:
        return f"its objects take more than {self._max_bytes} bytes"

    def _is_forgotten(self, error: Refused) -> bool:
        if self.is_complete and self.refused is None and self._upstream.may_be_starting:
            return False  # its watches go on
        now_s = asyncio.get_running_loop().time()
        self.refused = error
        if error.code == 401:  # the identity's credentials are too old, which says nothing of its rights
            self._refused_since_s = None
        self.replica.wake()  # its watches end, and their clients hear from the API server itself
        self._settled.set()
        self._say(f"the API server answers {error.code}: {error.text}")
        if error.code == 401:
            return False
        self._refused_since_s = self._refused_since_s or now_s
        return now_s - self._refused_since_s > REFUSED_S

    def _about(self) -> str:
        return json.dumps([self.api_version, self.list_kind])

    def _say(self, trouble: str) -> None:
        if trouble and trouble.partition(":")[0] != self.trouble.partition(":")[0]:  # the rest may differ each time
            _log.warning("a part of the API is not kept", code=SCOPE_NOT_KEPT.code, scope=self.scope.spoken(),
                         reason=trouble)  # fmt: skip
        self.trouble = trouble


# Internal


class _ShownList(NamedTuple):
    version: int
    position: int
    at_s: float


def _bytes_of(items: Iterable[Item]) -> int:
    return sum(len(item.raw) + OBJECT_BYTES for item in items)


def _stored(item: Item) -> Stored:
    namespace, name = item.key
    return Stored(namespace, name, item.metadata.uid, item.version, item.raw)


def _whole(scope: Scope, version: int, items: Iterable[Item], about: str) -> ScopeWrite:
    puts = [_stored(item) for item in items]
    return ScopeWrite(scope.text(), version, puts=puts, anew=True, is_secret=scope.is_secret, about=about)
