"""Keeps the fleet's objects and a bounded history of their changes, which lists, pages and watches read.

It is pure: what is put here comes from `mirror.py` of the fleet API, and who waits for a change waits in `watch.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.kubeapi.status import Json, expired

HISTORY_CHANGES = 20_000
"""The number of changes that are kept: enough for 10,000 agents that all leave and come back while a watcher reads one
answer."""

Key = tuple[str, str]
"""The namespace (empty for cluster-wide objects) and the name of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The record of one object that came, changed or went."""

    version: int
    resource: str
    before: Json | None
    """The object as it was; None when it is new."""
    after: Json | None
    """The object as it is now; None when it is gone."""


class ObjectStore:
    """The table of objects by resource and key, with the history of their changes.

    Objects are never changed in place, so whoever holds one may keep it.
    """

    def __init__(self, first_version: int, history_changes: int = HISTORY_CHANGES) -> None:
        """Makes an empty store.

        Args:
            first_version: must be above any that an earlier run of this server gave out, so that old watches end
                with 410 instead of missing changes.
            history_changes: how many changes are kept for watches that lag or come back.
        """
        self._objects: dict[str, dict[Key, Json]] = {}
        self._history: deque[Change] = deque(maxlen=history_changes)
        self._version = first_version
        self._oldest = first_version
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
        metadata = {**item["metadata"], "resourceVersion": str(self._version + 1)}
        objects[key] = {**item, "metadata": metadata}
        self._record(resource, before, objects[key])

    def remove(self, resource: str, key: Key) -> None:
        """Removes an object; nothing happens when there is none."""
        before = self._objects.get(resource, {}).pop(key, None)
        if before is not None:
            metadata = {**before["metadata"], "resourceVersion": str(self._version + 1)}
            self._record(resource, {**before, "metadata": metadata}, None)

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

    def changes_after(self, version: int, resource: str) -> list[Change]:
        """Returns the changes of a resource that are newer than a version, oldest first.

        Raises:
            ApiError: 410, these changes are no longer kept, or the version is from another run of the server.
        """
        if not self._oldest <= version <= self._version:
            raise expired(version, self._oldest)
        found: list[Change] = []
        for change in reversed(self._history):
            if change.version <= version:
                break
            if change.resource == resource:
                found.append(change)
        found.reverse()
        return found

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each change, until the caller calls the function that this returns."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    # Internal

    def _record(self, resource: str, before: Json | None, after: Json | None) -> None:
        self._version += 1
        if len(self._history) == self._history.maxlen:
            self._oldest = self._history[0].version
        self._history.append(Change(version=self._version, resource=resource, before=before, after=after))
        for listener in tuple(self._listeners):
            listener()


def _key(item: Json) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _without_version(item: Json) -> Json:
    metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
    return {**item, "metadata": metadata}
