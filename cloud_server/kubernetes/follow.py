"""Keeps an index of a cluster's objects up to date: list once, then watch, and list again when the thread is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Set as AbstractSet
from contextlib import aclosing, suppress
from typing import Protocol

import structlog

from cloud_server.kubernetes.access import Changed, ClusterAccess, ClusterUnavailable, NotPermitted, VersionTooOld
from cloud_server.kubernetes.objects import EndpointSlice, Key, KubernetesObject, Node, Pod, Service
from tunnel.core.path.backoff import Backoff
from tunnel.core.wire.faults import CLUSTER_FORBIDS, CLUSTER_UNAVAILABLE

KINDS: tuple[type[KubernetesObject], ...] = (Node, Service, EndpointSlice, Pod)
WATCH_S = 240
"""Seconds that the API is asked to keep a watch; kube-apiserver's own default is 30 to 60 minutes."""
GRACE_S = 15.0
"""Seconds that a watch may last beyond that. Only the client's own clock notices a connection that went dead in
silence.
"""
LIST_S = 180.0
"""Seconds that a list may take, all its pages together: 10,000 pods took 3 to 12 s on a busy machine
(docs/kubernetes-routing.md), and a cluster is made for 150,000. An API that hangs is given up sooner, at a page.
"""
PUT_AT_ONCE = 500
"""How many objects of a list are taken into the index before others have their turn: some 2.5 ms of work."""
WITHOUT: dict[type[KubernetesObject], str] = {
    Node: "no dial is routed by nodes or their pod networks",
    Service: "no dial is routed by services",
    EndpointSlice: "no dial is routed by services or their endpoints",
    Pod: "pods are found by the endpoints of services and by the nodes' podCIDR alone, which a CNI that hands out "
    "addresses itself does not keep to",
}
"""What is lost without the right to list and watch a kind; deploy/kustomize/base/rbac.yaml gives all these rights."""

FORGET_PODS_S = 60.0
"""Seconds that pods may be refused before those that are known are forgotten: they give their addresses away. An API
server that is just starting refuses for some seconds what it allows later. Other kinds stay, having nothing in their
place.
"""

_log = structlog.get_logger("cloud.kubernetes")


class Index(Protocol):
    """The index that the objects go into."""

    def not_permitted(self, kind: type[KubernetesObject]) -> None:
        """Notes that a kind may not be read, for now; what is known of it stays."""
        ...

    def keep_only(self, kind: type[KubernetesObject], keys: AbstractSet[Key]) -> None:
        """Removes all objects of a kind but those with these keys."""
        ...

    def put(self, one: KubernetesObject) -> None:
        """Stores an object that is new or different."""
        ...

    def remove(self, kind: type[KubernetesObject], key: Key) -> None:
        """Removes an object that is gone."""
        ...


class Follower:
    """The follower of the kinds that routing needs. One that may not be read is no loss to the others."""

    def __init__(self, access: ClusterAccess, index: Index) -> None:
        self._access = access
        self._index = index
        self._down: set[str] = set()
        self._began_s = asyncio.get_running_loop().time()
        self._heard_s: dict[type[KubernetesObject], float] = {}
        """The loop time when the API was heard of each kind last; a kind that may not be read has none."""
        self.away: dict[str, str] = {}
        """The kinds of which the API gives no news now, and why not."""
        self._refused_since_s: dict[type[KubernetesObject], float] = {}

    async def run(self) -> None:
        """Follows the cluster until cancelled. What is known stays in use while the API is away."""
        async with asyncio.TaskGroup() as kinds:
            for kind in KINDS:
                kinds.create_task(self._follow(kind), name=f"follow {kind.__name__}")

    def ages_s(self) -> dict[str, float]:
        """Returns how many seconds ago each kind was heard of, by name: up to WATCH_S + GRACE_S while all is well and
        nothing happens in the cluster.
        """
        now_s = asyncio.get_running_loop().time()
        return {kind.__name__: now_s - heard_s for kind, heard_s in self._heard_s.items()}

    # Internal

    async def _follow(self, kind: type[KubernetesObject]) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(random=random.random)
        while True:
            try:
                version = await self._list(kind)
                started_s = loop.time()
                try:
                    while True:
                        version = await self._watch(kind, version)
                finally:
                    backoff.connected_for(loop.time() - started_s)
            except VersionTooOld:
                _log.debug("listing anew: the cluster forgot the changes since", kind=kind.__name__)
            except NotPermitted as refusal:
                self._refused(kind, str(refusal))
            except (ClusterUnavailable, TimeoutError) as error:
                self._lost(kind, str(error) or "no answer in time")
            await asyncio.sleep(backoff.next_delay())

    async def _list(self, kind: type[KubernetesObject]) -> str:
        async with asyncio.timeout(LIST_S):
            snapshot = await self._access.list_all(kind)
        for number, one in enumerate(snapshot.objects):
            if number % PUT_AT_ONCE == PUT_AT_ONCE - 1:
                await asyncio.sleep(0)
            self._index.put(one)
        self._index.keep_only(kind, {one.key for one in snapshot.objects})
        say = _log.info if kind.__name__ in self._down else _log.debug
        say("read from the cluster", kind=kind.__name__, objects=len(snapshot.objects))
        self._heard(kind)
        self._down.discard(kind.__name__)
        self._refused_since_s.pop(kind, None)
        return snapshot.version

    async def _watch(self, kind: type[KubernetesObject], version: str) -> str:
        """Watches for a while. Returns the version to go on from."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S + GRACE_S), aclosing(self._access.watch(kind, version, WATCH_S)) as all_:
                async for change in all_:
                    version = change.version
                    self._heard(kind)
                    if isinstance(change, Changed):
                        self._index.put(change.object)
                    else:
                        self._index.remove(kind, change.key)
                self._heard(kind)
        return version

    def _heard(self, kind: type[KubernetesObject]) -> None:
        self._heard_s[kind] = asyncio.get_running_loop().time()
        self.away.pop(kind.__name__, None)

    def _refused(self, kind: type[KubernetesObject], reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        since_s = self._refused_since_s.setdefault(kind, now_s)
        if kind is Pod and now_s - since_s >= FORGET_PODS_S:
            self._index.keep_only(kind, frozenset())
        self._index.not_permitted(kind)
        self._heard_s.pop(kind, None)
        self.away.pop(kind.__name__, None)
        level = _log.debug if kind.__name__ in self._down else _log.warning
        text = f"the cluster's API lets this account read none: {WITHOUT[kind]}"
        level(text, code=CLUSTER_FORBIDS.code, kind=kind.__name__, reason=reason)
        self._down.add(kind.__name__)

    def _lost(self, kind: type[KubernetesObject], reason: str) -> None:
        self._heard_s.setdefault(kind, self._began_s)
        self.away[kind.__name__] = reason
        level = _log.debug if kind.__name__ in self._down else _log.warning
        text = "the cluster's API is away, going on with what is known"
        level(text, code=CLUSTER_UNAVAILABLE.code, kind=kind.__name__, reason=reason)
        self._down.add(kind.__name__)
