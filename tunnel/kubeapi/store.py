"""Keeps the fleet's objects and a bounded history of their changes, which lists, pages and watches read.

It is pure: what is put here comes from `mirror.py` of the fleet API, and who waits for a change waits in `watch.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from tunnel.kubeapi.held import held_bytes, sharing
from tunnel.kubeapi.history import Change, History
from tunnel.kubeapi.status import Json, expired

HISTORY_CHANGES = 20_000
"""The number of changes that are kept: enough for 10,000 agents that all leave and come back while a watcher reads one
answer."""
HISTORY_BYTES = 16 * 1024 * 1024
"""The memory that changes keep which nothing else holds any more. An agent that leaves or comes back takes 2.2 KiB, and
its pod some more.
"""
CHANGE_BYTES = 200
"""The memory of a change beside its objects."""

Key = tuple[str, str]
"""The namespace (empty for cluster-wide objects) and the name of an object."""


class ObjectStore:
    """The table of objects by resource and key, with the history of their changes.

    Objects are never changed in place, so whoever holds one may keep it.
    """

    def __init__(
        self, first_version: int, history_changes: int = HISTORY_CHANGES, history_bytes: int = HISTORY_BYTES
    ) -> None:
        """Makes an empty store.

        Args:
            first_version: must be above any that an earlier run of this server gave out, so that old watches end
                with 410 instead of missing changes.
            history_changes: how many changes are kept for watches that lag or come back.
            history_bytes: how much memory these may hold. Where there are too many or too large ones, those of the
                resource that holds most go first.
        """
        self._objects: dict[str, dict[Key, Json]] = {}
        self._history: dict[str, History[Json]] = {}
        self._history_changes = history_changes
        self.history_bytes = history_bytes
        self._changes_kept = 0
        self._bytes_kept = 0
        self._version = self._first_version = first_version
        self._listeners: set[Callable[[], None]] = set()

    @property
    def version(self) -> int:
        """Returns the version of the newest change, or the first version when nothing has changed yet."""
        return self._version

    def put(self, resource: str, item: Json) -> None:
        """Adds or replaces an object, under a new `resourceVersion`. One that is the same as before is no change."""
        key = _key(item)
        objects = self._objects.setdefault(resource, {})
        before = objects.get(key)
        if before is not None and _without_version(before) == item:
            return
        item, held = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version + 1)}}, 0
        if before is not None:
            shared, held = sharing(before, item)
            item = cast("Json", shared)
        objects[key] = item
        self._record(resource, before, item, held)

    def remove(self, resource: str, key: Key) -> None:
        """Removes an object; nothing happens when there is none."""
        before = self._objects.get(resource, {}).pop(key, None)
        if before is not None:
            metadata = {**before["metadata"], "resourceVersion": str(self._version + 1)}
            self._record(resource, {**before, "metadata": metadata}, None, held_bytes(before))

    def step(self) -> None:
        """Counts on without a change, and wakes whoever waits for one: versions from before are older from now on."""
        self._version += 1
        for listener in tuple(self._listeners):
            listener()

    def get(self, resource: str, key: Key) -> Json | None:
        """Returns one object, or None when there is none."""
        return self._objects.get(resource, {}).get(key)

    def items(self, resource: str, namespace: str | None = None) -> list[Json]:
        """Returns the objects of a resource in order of namespace and name.

        Args:
            resource: such as `pods`.
            namespace: the only namespace to look in; None means all.
        """
        objects = self._objects.get(resource, {})
        return [objects[key] for key in sorted(objects) if namespace is None or key[0] == namespace]

    def changes_after(self, version: int, resource: str, at_most: int | None = None) -> list[Change[Json]]:
        """Returns the changes of a resource that are newer than a version, oldest first.

        `at_most`: how many are returned, the oldest of them; None means all.

        Raises:
            ApiError: 410, these changes are no longer kept, or the version is from another run of the server.
        """
        history = self._history.get(resource)
        oldest = history.oldest if history is not None else self._first_version
        if not oldest <= version <= self._version:
            raise expired(version, oldest)
        if history is None:
            return []
        return history.since(history.position(version), at_most) or []

    @property
    def history_held_bytes(self) -> int:
        """Returns how much memory the changes hold."""
        return self._bytes_kept

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each change, until the caller calls the function that this returns."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    # Internal

    def _record(self, resource: str, before: Json | None, after: Json | None, held: int = 0) -> None:
        """Keeps a change. `held`: how many bytes of `before` nothing but the change holds."""
        self._version += 1
        history = self._history.get(resource)
        if history is None:
            history = self._history[resource] = History(self._first_version)
        history.add(Change(version=self._version, before=before, after=after), CHANGE_BYTES + held)
        self._changes_kept += 1
        self._bytes_kept += CHANGE_BYTES + held
        while self._changes_kept > self._history_changes or self._bytes_kept > self.history_bytes:
            # What one kind of object takes, it takes from itself: pods that come and go cost nobody the nodes' past.
            largest = max(self._history.values(), key=lambda one: one.held_bytes)
            self._bytes_kept -= largest.forget_one()
            self._changes_kept -= 1
        for listener in tuple(self._listeners):
            listener()


def _key(item: Json) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _without_version(item: Json) -> Json:
    metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
    return {**item, "metadata": metadata}
