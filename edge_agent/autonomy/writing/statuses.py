"""Takes what the kubelet says of its node and pods while the API server is away, and tells that when it is back.

1. A patch of a status is applied to the object as it is kept, written to the disk, and only then answered (202). From
   then on the object is shown so, also to watches: the kubelet takes what it sees for what the API server knows.
2. When the API server is back, and the watch of that object has caught up, the difference between the status as the API
   server had it and as it is now goes there, on condition that the object has the same uid still.
3. What the kubelet tells the API server itself comes behind what waits of that object: it may say only what differs
   from what the kubelet was shown here.
4. An object that is gone, or is another one of that name, has no use for it: it is dropped, and that is reported.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from weakref import WeakValueDictionary

import structlog

from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.feed import Feed
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.writing.replaying import Refusals, Send, Verdict
from tunnel.core.wire.faults import NOT_TOLD
from tunnel.kubeapi.encoding import decode, encode
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.status import ApiError, Json, about
from tunnel.kubeapi.strategic_merge import MergeKeys, difference, merged

SCOPE = "!statuses"
STRATEGIC, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"
RESOURCES = frozenset((("", "pods"), ("", "nodes")))
KEYS: dict[str, MergeKeys] = {
    "pods": {
        "status.conditions": "type", "status.hostIPs": "ip", "status.podIPs": "ip",
        "status.resourceClaimStatuses": "name",
    },
    "nodes": {"status.conditions": "type", "status.addresses": "type"},
}  # fmt: skip
"""The merged lists of statuses, from k8s.io/api v0.34 `core/v1/types.go`."""

_log = structlog.get_logger("edge.autonomy")


class Told(NamedTuple):
    """What is to be told of one object."""

    path: str
    """Of its status."""
    uid: str
    before: Json
    """Its status as the API server had it."""
    status: Json
    since: datetime | None
    """Since when it waits; None: it was kept by a build that did not write that."""


class Statuses:
    """The statuses that the API server does not know of yet."""

    def __init__(self, keeper: Keeper) -> None:
        """Reads nothing yet."""
        self._keeper = keeper
        self._told: dict[tuple[str, str, str], Told] = {}
        """By resource, namespace and name."""
        self._locks: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self.refusals = Refusals()

    def __len__(self) -> int:
        return len(self._told)

    def restore(self, kept: Kept | None) -> None:
        """Takes what was on the disk."""
        for one in kept.objects if kept is not None else ():
            try:
                resource, path, before, status, *since = json.loads(one.raw)
                statuses = checked_status(before, resource), checked_status(status, resource)
                told = Told(path, one.uid, *statuses, datetime.fromisoformat(since[0]) if since else None)
            except (ValueError, KeyError, ApiError):
                continue
            self._told[resource, one.namespace, one.name.partition("/")[2]] = told

    @property
    def since(self) -> datetime | None:
        """Returns since when the one waits that has waited longest; None when nothing waits, or it is not known."""
        return min((told.since for told in self._told.values() if told.since is not None), default=None)

    def lock(self, info: RequestInfo) -> asyncio.Lock:
        """Returns what whoever tells of an object must hold, from before they look at it until it is told or queued:
        what is said first must not come last.
        """
        return self._lock((info.resource, info.namespace, info.name))

    def of_pods(self) -> Iterator[tuple[str, Json]]:
        """Yields the uid and the status of each pod that is to be told of."""
        for (resource, _, _), told in self._told.items():
            if resource == "pods":
                yield told.uid, told.status

    def show(self, feed: Feed) -> None:
        """Shows in a scope what is told of its objects."""
        now_s = asyncio.get_running_loop().time()
        for (resource, namespace, name), told in self._told.items():
            if (feed.scope.group, feed.scope.resource, feed.scope.encoding) != ("", resource, "json"):
                continue
            item = feed.replica.get((namespace, name))
            if item is not None and item.metadata.uid == told.uid:
                shown = _mapping(decode(item.raw))
                feed.replica.alter(_with_status(item, shown, told.status), now_s)

    async def patch(self, info: RequestInfo, path: str, content_type: str, body: bytes, item: Item, feed: Feed) -> Item:
        """Takes a patch of a status, and returns the object with it.

        Args:
            info: the request.
            path: its path.
            content_type: how the patch is to be read.
            body: the patch.
            item: the object as it is shown.
            feed: the scope that it is shown in.

        Raises:
            ApiError: the patch makes no sense, is for another object of that name, or cannot be kept.
        """
        if content_type not in (STRATEGIC, MERGE):
            raise ApiError(415, f"while the API server is away, a status is patched by {STRATEGIC} or {MERGE}")
        shown = _mapping(decode(item.raw))
        patch = _patch(body)
        uid = _mapping(patch.get("metadata") or {}).get("uid")
        if uid not in (None, item.metadata.uid):
            raise ApiError(
                409,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {item.metadata.uid}",
                details=about("", info.resource, info.name),
            )
        try:
            status = merged(shown, patch, KEYS[info.resource] if content_type == STRATEGIC else {}).get("status") or {}
            altered = _with_status(item, shown, checked_status(status, info.resource))
        except (ValueError, TypeError, RecursionError) as error:
            raise ApiError(400, f"the patch cannot be applied: {error}") from error
        if status == shown.get("status"):
            return item
        key = (info.resource, info.namespace, info.name)
        known = self._told.get(key)
        before, since = shown.get("status") or {}, datetime.now(UTC)
        if known is not None and known.uid == item.metadata.uid:
            before, since = known.before, known.since or since
        told = Told(path, item.metadata.uid, before, status, since)
        raw = json.dumps([info.resource, told.path, told.before, told.status, since.isoformat()]).encode()
        put = Stored(info.namespace, _stored_name(info), told.uid, 0, raw)
        if trouble := await self._keeper.write(ScopeWrite(SCOPE, 0, puts=[put]), durable=True):
            raise ApiError(503, f"what the kubelet says cannot be kept: {trouble}")
        self._told[key] = told
        if feed.replica.get(item.key) is item:  # else something newer has come meanwhile
            feed.replica.alter(altered, asyncio.get_running_loop().time())
        return altered

    async def tell(self, info: RequestInfo, send: Send) -> None:
        """Tells the API server what waits of one object, whose lock the caller holds.

        Raises:
            Unreached: it is away again, or refuses for now; what waits goes on waiting.
        """
        await self._tell((info.resource, info.namespace, info.name), send)

    async def superseded(self, info: RequestInfo) -> None:
        """Takes that the kubelet has told the API server itself of an object, which may have refused what waited."""
        await self._forget((info.resource, info.namespace, info.name))

    async def replay(self, send: Send) -> None:
        """Tells the API server all.

        Raises:
            Unreached: it is away again, or refuses for now; what is left waits on.
        """
        refused = 0
        for key in list(self._told):
            async with self._lock(key):
                refused += not await self._tell(key, send)
        if refused:
            raise Unreached(f"the API server refuses {refused} statuses")

    # Internal

    async def _tell(self, key: tuple[str, str, str], send: Send) -> bool:
        """Tells what waits of one object, and returns whether nothing of it waits any more."""
        told = self._told.get(key)
        if told is None:
            return True
        patch = {"metadata": {"uid": told.uid},
                 "status": difference(told.before, told.status, KEYS[key[0]], "status")}  # fmt: skip
        status = await send("PATCH", told.path, STRATEGIC, encode(patch))
        verdict = self.refusals.verdict(key, status)
        if verdict is Verdict.LATER:
            return False
        if verdict is Verdict.USELESS:
            _log.warning("what the kubelet said while the API server was away is of no use any more",
                         code=NOT_TOLD.code, path=told.path, status=status)  # fmt: skip
        await self._forget(key)
        return True

    def _lock(self, key: tuple[str, str, str]) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    async def _forget(self, key: tuple[str, str, str]) -> None:
        self.refusals.forget(key)
        if self._told.pop(key, None) is not None:
            resource, namespace, name = key
            await self._keeper.write(ScopeWrite(SCOPE, 0, removed=[(namespace, f"{resource}/{name}")]))


def is_status_patch(info: RequestInfo) -> bool:
    """Returns whether a request patches the status of a node or pod."""
    return info.verb == "patch" and (info.group, info.resource) in RESOURCES and info.subresource == "status"


def checked_status(status: object, resource: str) -> Json:
    """Returns a status whose merged lists are such.

    Raises:
        ValueError: it is none that the API server could have.
        KeyError: there is no such resource.
    """
    if not isinstance(status, dict):
        raise ValueError("a status is an object")  # noqa: TRY004 - what came is wrong, and not its caller
    for path, key in KEYS[resource].items():
        name = path.removeprefix("status.")
        elements = status.get(name) or []
        if not isinstance(elements, list) or not all(isinstance(one, dict) and key in one for one in elements):
            raise ValueError(f"{path} must be a list whose elements have {key}")
    return status


# Internal


def _stored_name(info: RequestInfo) -> str:
    return f"{info.resource}/{info.name}"


def _patch(body: bytes) -> Json:
    try:
        return _mapping(decode(body))
    except ValueError as error:
        raise ApiError(400, f"the patch cannot be read: {error}") from error


def _mapping(value: object) -> Json:
    if not isinstance(value, dict):
        raise ApiError(400, "an object was expected")
    return value


def _with_status(item: Item, shown: Json, status: Json) -> Item:
    return item._replace(raw=encode({**shown, "status": status}).rstrip())
