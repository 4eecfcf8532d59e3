"""Keeps the namespaces that pods of boxes are in: each comes with its first pod and goes with its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime

from cloud_server.frontends.fleet.objects import namespace_object
from cloud_server.frontends.fleet.resources import NAMESPACES
from tunnel.kubeapi.store import ObjectStore

MAX_GONE = 1024
"""How many namespaces that are gone are remembered with the boxes that were in them. Watches hear of the end of those
only that their clients were shown, and may be some changes behind.
"""


class Namespaces:
    """The namespaces in the store, and whose pods are in each."""

    def __init__(self, store: ObjectStore, clock: Callable[[], datetime]) -> None:
        """Begins with none; `begin` puts those into the store that there always are."""
        self._store = store
        self._clock = clock
        self._boxes: dict[str, Counter[str]] = {}
        """How many pods each box has in a namespace."""
        self._gone: dict[str, Collection[str]] = {}

    def begin(self) -> None:
        """Puts the namespaces that there always are into the store."""
        for name in NAMESPACES:
            self._store.put("namespaces", namespace_object(name, self._clock()))

    def entered(self, namespace: str, agent: str) -> None:
        """Notes that a box has one more pod in a namespace."""
        boxes = self._boxes.get(namespace)
        if boxes is None:
            boxes = self._boxes[namespace] = Counter()
            self._gone.pop(namespace, None)
            if namespace not in NAMESPACES:
                self._store.put("namespaces", namespace_object(namespace, self._clock()))
        boxes[agent] += 1

    def left(self, namespace: str, agent: str) -> None:
        """Notes that a box has one pod less in a namespace. The box must have had one there."""
        boxes = self._boxes[namespace]
        boxes[agent] -= 1
        if not boxes[agent]:
            del boxes[agent]
        if not boxes:
            del self._boxes[namespace]
            if namespace not in NAMESPACES:
                self._forget(namespace, (agent,))

    def boxes(self, namespace: str) -> Collection[str]:
        """Returns the boxes that have pods in a namespace; of one that is gone, the box that had the last."""
        return self._boxes.get(namespace) or self._gone.get(namespace, ())

    # Internal

    def _forget(self, namespace: str, last: Collection[str]) -> None:
        while len(self._gone) >= MAX_GONE:
            del self._gone[next(iter(self._gone))]
        self._gone[namespace] = last
        self._store.remove("namespaces", ("", namespace))
