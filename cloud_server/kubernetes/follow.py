"""Keeps an index of a cluster's objects up to date: list once, then watch, and list again when the thread is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import aclosing, suppress
from typing import Protocol

import structlog

from cloud_server.kubernetes.access import Changed, ClusterAccess, ClusterUnavailable, VersionTooOld
from cloud_server.kubernetes.objects import EndpointSlice, Key, KubernetesObject, Node, Service
from tunnel.core.backoff import Backoff

KINDS: tuple[type[KubernetesObject], ...] = (Node, Service, EndpointSlice)
WATCH_S = 240
"""How long the API is asked to keep a watch; kube-apiserver's own default is 30 to 60 minutes."""
GRACE_S = 15.0
"""What a watch may last beyond that. Only the client's own clock notices a connection that went dead in silence."""
LIST_S = 30.0
"""How long a list may take, all its pages together."""

_log = structlog.get_logger("cloud.kubernetes")


class Index(Protocol):
    """Where the objects go."""

    def replace(self, kind: type[KubernetesObject], objects: Iterable[KubernetesObject]) -> None:
        """These are all objects of a kind."""
        ...

    def put(self, one: KubernetesObject) -> None:
        """An object is new or different."""
        ...

    def remove(self, kind: type[KubernetesObject], key: Key) -> None:
        """An object is gone."""
        ...


class Follower:
    """Follows the kinds that routing needs."""

    def __init__(self, access: ClusterAccess, index: Index) -> None:
        self._access = access
        self._index = index
        self._down: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled. What is known stays in use while the API is away."""
        async with asyncio.TaskGroup() as kinds:
            for kind in KINDS:
                kinds.create_task(self._follow(kind), name=f"follow {kind.__name__}")

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
            except (ClusterUnavailable, TimeoutError) as error:
                self._lost(kind, str(error) or "no answer in time")
            await asyncio.sleep(backoff.next_delay())

    async def _list(self, kind: type[KubernetesObject]) -> str:
        async with asyncio.timeout(LIST_S):
            snapshot = await self._access.list_all(kind)
        self._index.replace(kind, snapshot.objects)
        level = _log.info if kind.__name__ in self._down else _log.debug
        level("read from the cluster", kind=kind.__name__, objects=len(snapshot.objects))
        self._down.discard(kind.__name__)
        return snapshot.version

    async def _watch(self, kind: type[KubernetesObject], version: str) -> str:
        """Watch for a while; returns the version to go on from."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S + GRACE_S), aclosing(self._access.watch(kind, version, WATCH_S)) as all_:
                async for change in all_:
                    version = change.version
                    if isinstance(change, Changed):
                        self._index.put(change.object)
                    else:
                        self._index.remove(kind, change.key)
        return version

    def _lost(self, kind: type[KubernetesObject], reason: str) -> None:
        level = _log.debug if kind.__name__ in self._down else _log.warning
        level("the cluster's API is away, going on with what is known", kind=kind.__name__, reason=reason)
        self._down.add(kind.__name__)
