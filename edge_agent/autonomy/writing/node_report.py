"""Says on the Node, and in Events, how this node can do without the API server, and when it had to.

1. The Node has a condition, CONDITION: whether all that is asked for on the node is kept, and when the API server was
   away last. It is written when it has changed, with the node's own rights. The kubelet leaves it alone: its patches of
   conditions are merged by their type.
2. While the API server is away the condition says so to whoever looks at the Node here. That goes the way of what the
   kubelet says (statuses), so that it is there after a restart as well.
3. When it is back, and was told what had waited, an Event on the Node says from when to when it was away, what was told
   late, and what was dropped and why.
4. BURST tellings are free, and one each EACH_S after that: a link that comes and goes is told as one outage. Nothing is
   written to the disk for an outage that is shorter than NOTED_S.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

import structlog

from edge_agent.autonomy.asks import NODE, named_scope
from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.feeds import Feeds
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.upward.uplink import Uplink
from edge_agent.autonomy.writing.offline_writes import OfflineWrites
from edge_agent.autonomy.writing.outages import Outages, stamp
from edge_agent.autonomy.writing.replaying import Refusals, Verdict
from edge_agent.autonomy.writing.statuses import STRATEGIC
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.faults import NOT_TOLD
from tunnel.kubeapi.codecs import JSON
from tunnel.kubeapi.encoding import decode, encode
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.request_info import request_info
from tunnel.kubeapi.status import ApiError, Json

SCOPE = "!outages"
CONDITION = "longline/Autonomous"
"""The type of the condition: True when all is kept that is asked for on the node."""
ALL_KEPT, NOT_KEPT, AWAY = "AllKept", "PartsNotKept", "ApiServerAway"
"""The reasons of the condition. The last one is seen on the node alone."""
BACK = "ApiServerReached"
"""The reason of the Event."""
COMPONENT = "longline"
LOOK_S = 10.0
"""Seconds after which it is looked whether the condition has changed."""
NOTED_S = 10.0
"""Seconds after which an outage is noted on the disk and shown on the Node."""
FRESH_S = 30.0
"""Seconds for which a part may be asked for before it counts as one that is not kept, and for which what waits may be
told before the outage is.
"""
EACH_S = 300.0
"""Seconds for each telling beyond the first ones, as client-go limits the events of one object (client-go v0.34
`tools/record/events_cache.go`, defaultSpamQPS).
"""
BURST = 10
"""How many tellings are free at first."""
NAMED_PARTS = 3
"""How many parts that are not kept are named; of others it is said how many."""
KEPT_EACH_S = 60.0
"""Seconds between two writes to the disk, however often the API server comes and goes."""

_log = structlog.get_logger("edge.autonomy")


class NodeReport:
    """What is said of the node."""

    def __init__(self, feeds: Feeds, keeper: Keeper, uplink: Uplink, writes: OfflineWrites) -> None:
        """Says nothing yet.

        Args:
            feeds: what is kept.
            keeper: the disk.
            uplink: the way to the API server.
            writes: what the API server is to be told, and the way of telling it.
        """
        self._feeds = feeds
        self._keeper = keeper
        self._uplink = uplink
        self._writes = writes
        self._outages = Outages()
        self._wake = asyncio.Event()
        self._turned_s = 0.0
        """When the API server went away or came back, on the loop's clock."""
        self._is_noted = False
        """Whether the disk and the Node have the outage that goes on, or went on until now."""
        self._kept_s = float("-inf")
        """When the disk was written last, on the loop's clock."""
        self._said: _Said | None = None
        """The condition as it was written last; None: not in this process."""
        self._unkept_s: dict[str, float] = {}
        """By the name of a part, since when it is asked for and not kept, on the loop's clock."""
        self._tellings, self._refilled_s = float(BURST), 0.0
        self._refusals = Refusals()
        self._told: Mapping[str, int] = {}
        self._dropped: Mapping[str, Counter[str]] = {}
        """What was told and dropped up to the last Event."""

    # Public

    def restore(self, kept: Kept | None) -> None:
        """Takes what was on the disk. The scopes must be there already."""
        for one in kept.objects if kept is not None else ():
            with suppress(ValueError):
                self._outages.restore(one.raw)
        self._is_noted = self._outages.since is not None
        if self._outages.since is not None:
            seconds = (datetime.now(UTC) - self._outages.since).total_seconds()
            for feed in self._feeds.all:
                feed.stale_for(max(seconds, 0.0))

    def turned(self, *, is_up: bool) -> None:
        """Takes that the API server is away, or back."""
        self._turned_s = asyncio.get_running_loop().time()
        if is_up:
            self._outages.ended(datetime.now(UTC))
        else:
            self._outages.began(datetime.now(UTC), self._uplink.reason)
        self._wake.set()

    def look(self) -> None:
        """Takes that something of what waited was told."""
        self._wake.set()

    async def withdraw(self) -> None:
        """Takes the condition from the Node: nobody is there any more to keep it true. If the API server is away, it
        stays.
        """
        node = self._node()
        if node is None or not self._uplink.is_up or not any(one.get("type") == CONDITION for one in _conditions(node)):
            return
        body = encode({"status": {"conditions": [{"type": CONDITION, "$patch": "delete"}]}})
        with suppress(StreamError):
            await self._writes.send("PATCH", _status_path(node), STRATEGIC, body)

    def as_json(self) -> Json:
        """Returns what is known of outages, as the admin API shows it."""
        return {
            "since": self._outages.since,
            "untold": self._outages.text() or None,
            "last_told": self._outages.last or None,
        }

    async def run(self) -> None:
        """Says what is to be said until it is cancelled."""
        self._told, self._dropped = self._writes.told, self._writes.dropped
        await self._uplink.known()
        if not self._uplink.is_up:
            self.turned(is_up=False)
        while True:
            self._wake.clear()
            try:
                if self._uplink.is_up:
                    await self._tell()
                    await self._note_end()
                else:
                    await self._note()
            except StreamError as error:
                _log.info("the Node could not be told of how it stands", reason=error.text)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    # While the API server is away

    async def _note(self) -> None:
        since, now_s = self._outages.since, asyncio.get_running_loop().time()
        if self._is_noted or since is None or now_s - max(self._turned_s + NOTED_S, self._kept_s + KEPT_EACH_S) < 0:
            return
        self._is_noted = True
        await self._keep()
        node = self._node()
        if node is None:
            return
        about = self._about()
        said = _Said(
            node.metadata.uid, about.status, AWAY, f"The API server is away since {stamp(since)}. {about.text}"
        )
        path = _status_path(node)
        info = request_info("PATCH", path, ())
        named = named_scope(info.reading(), JSON.media_type, NODE)
        async with self._writes.statuses.lock(info):
            single, feed = (self._feeds.object(named) if named is not None else None) or (None, None)
            if single is None or feed is None:
                return
            patch = encode({"status": {"conditions": [said.condition(single.item)]}})
            try:
                await self._writes.statuses.patch(info, path, STRATEGIC, patch, single.item, feed)
            except ApiError as error:
                _log.info("the Node does not show that the API server is away", reason=error.message)
                return
        self._writes.wake()

    # While it is reached

    async def _tell(self) -> None:
        """Tells the API server what has changed, if that is due.

        Raises:
            StreamError: it has not answered.
        """
        loop, node, about = asyncio.get_running_loop(), self._node(), self._about()
        up_s = loop.time() - self._turned_s
        is_told = not (len(self._writes.statuses) or len(self._writes.events))
        if node is None or not (is_told or up_s >= FRESH_S):
            return
        has_outages = self._outages.are_over
        if not has_outages and up_s < FRESH_S:
            return
        last = self._outages.text() or self._outages.last
        text = f"{about.text} The API server was away {last}." if last else about.text
        said = _Said(node.metadata.uid, about.status, about.reason, text)
        is_new = said != self._said and said.condition(node) not in _conditions(node)
        if not has_outages and not is_new:
            self._said = said
            return
        if not self._may_tell(loop.time()):
            return
        await self._say(node, said if is_new else None, has_outages=has_outages)
        self._tellings -= 1.0

    async def _say(self, node: Item, said: _Said | None, *, has_outages: bool) -> None:
        """Tells of outages that are over, if there are some, and of a condition that is new, if there is one."""
        if has_outages:
            await self._tell_outages(node)
        if said is not None:
            body = encode({"status": {"conditions": [said.condition(node)]}})
            self._check(await self._writes.send("PATCH", _status_path(node), STRATEGIC, body), "the condition")
            self._said = said

    async def _note_end(self) -> None:
        """Takes the end of an outage to the disk that could not be told yet, so that a restart does not prolong it."""
        if self._is_noted and asyncio.get_running_loop().time() - self._kept_s >= KEPT_EACH_S:
            self._is_noted = False
            await self._keep()

    async def _tell_outages(self, node: Item) -> None:
        span, counted = self._outages.span, (self._writes.told, self._writes.dropped)
        body = encode(self._event(node))
        status = await self._writes.send("POST", "/api/v1/namespaces/default/events", JSON.media_type, body)
        if status != 409:  # else it is there already, and its answer was lost
            self._check(status, "the Event of an outage")
        if self._outages.span != span:
            return  # there was another one just now: they are told together
        self._told, self._dropped = counted
        self._outages.told()
        self._is_noted = self._outages.since is not None
        await self._keep()

    def _check(self, status: int, what: str) -> None:
        """Judges an answer. What is refused is not said again: the next change is.

        Raises:
            Unreached: it is to be said again.
        """
        verdict = self._refusals.verdict(what, status)
        if verdict is Verdict.LATER:  # as of one that has just started
            raise Unreached(f"the API server answers {status}")
        self._refusals.forget(what)
        if verdict is Verdict.USELESS:
            _log.warning(
                "the API server refuses what is said of the Node", code=NOT_TOLD.code, what=what, status=status
            )

    def _may_tell(self, now_s: float) -> bool:
        self._tellings = min(self._tellings + (now_s - self._refilled_s) / EACH_S, float(BURST))
        self._refilled_s = now_s
        return self._tellings >= 1.0

    def _event(self, node: Item) -> Json:
        span = self._outages.span
        assert span is not None
        begin, end = span
        dropped = {kind: counts - self._dropped[kind] for kind, counts in self._writes.dropped.items()}
        told = {kind: count - self._told[kind] for kind, count in self._writes.told.items()}
        parts = [
            f"The API server was away {self._outages.text()}.",
            f"Told late: {_counted(told)}." if any(told.values()) else "",
            *(f"Dropped {kind}: {_counted(why)}." for kind, why in dropped.items() if why),
            self._about().text,
        ]
        name = node.metadata.name
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{int(end.timestamp() * 1e6):x}", "namespace": "default"},
            # As a kubelet names its Node (kubelet v1.34, `cmd/kubelet/app/server.go`, nodeRef).
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name},
            "reason": BACK,
            "message": " ".join(filter(None, parts))[:1024],
            "type": "Warning" if any(dropped.values()) else "Normal",
            "source": {"component": COMPONENT, "host": name},
            "reportingComponent": COMPONENT,
            "reportingInstance": name,
            "firstTimestamp": stamp(begin),
            "lastTimestamp": stamp(end),
            "count": self._outages.count,
        }

    # Both

    def _about(self) -> _About:
        """Returns whether all is kept that is asked for here, and what is not."""
        now_s = asyncio.get_running_loop().time()
        unkept = {
            feed.scope.spoken(): feed.trouble
            for feed in self._feeds.all
            if not (feed.is_complete and feed.is_kept) and feed.refused is None
        }
        unkept |= {scope.spoken(): "there is no room" for scope in self._feeds.passed}
        self._unkept_s = {name: self._unkept_s.get(name, now_s) for name in unkept}
        lasting = sorted(name for name, since_s in self._unkept_s.items() if now_s - since_s >= FRESH_S)
        if self._keeper.trouble:
            return _About("False", NOT_KEPT, f"Nothing is kept: {self._keeper.trouble}.")
        if not lasting:
            return _About("True", ALL_KEPT, "All that this node asks the API server for is kept.")
        named = "; ".join(f"{name} ({unkept[name] or 'it does not come'})" for name in lasting[:NAMED_PARTS])
        more = f"; {len(lasting) - NAMED_PARTS} more" if len(lasting) > NAMED_PARTS else ""
        return _About("False", NOT_KEPT, f"Not kept: {named}{more}.")

    def _node(self) -> Item | None:
        """Returns the Node as it is shown; None when the kubelet has not asked for it yet."""
        for feed in self._feeds.all:
            scope = feed.scope
            if (scope.who, scope.group, scope.resource, scope.encoding) == (NODE, "", "nodes", JSON.name):
                for item in feed.replica.items(lambda _: True):
                    if scope.field_selector == f"metadata.name={item.metadata.name}":
                        return item
        return None

    async def _keep(self) -> None:
        self._kept_s = asyncio.get_running_loop().time()
        put = Stored("", "outages", "", 0, self._outages.raw())
        await self._keeper.write(ScopeWrite(SCOPE, 0, puts=[put]))


# Internal


class _About(NamedTuple):
    status: str
    reason: str
    text: str


class _Said(NamedTuple):
    """A condition, and of which Node."""

    uid: str
    status: str
    reason: str
    message: str

    def condition(self, node: Item) -> Json:
        """Returns it as the Node has it. One that is the same as the Node's has its times."""
        now = stamp(datetime.now(UTC))
        before = next((one for one in _conditions(node) if one.get("type") == CONDITION), {})
        made = {"type": CONDITION, "status": self.status, "reason": self.reason, "message": self.message}
        if made.items() <= before.items():
            return before
        since = before.get("lastTransitionTime") if before.get("status") == self.status else None
        return {**made, "lastHeartbeatTime": now, "lastTransitionTime": since or now}


def _conditions(node: Item) -> list[Json]:
    shown = decode(node.raw)
    status = shown.get("status") if isinstance(shown, dict) else None
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return [one for one in conditions or () if isinstance(one, dict)]


def _status_path(node: Item) -> str:
    return f"/api/v1/nodes/{quote(node.metadata.name, safe='')}/status"


def _counted(counts: Mapping[str, int]) -> str:
    """Returns numbers for a person: `3 x statuses, 12 x events`."""
    return ", ".join(f"{count} x {what}" for what, count in counts.items() if count)
