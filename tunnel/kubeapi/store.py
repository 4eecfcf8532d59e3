"""The fleet's objects with a bounded history of their changes, which is what lists, pages and watches read.

It is pure: what is put here comes from `mirror.py`, and who waits for a change waits in `watch.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.kubeapi.status import Json, expired

HISTORY_CHANGES = 20_000
"""Enough for 10,000 agents that all leave and come back while a watcher reads one answer."""

Key = tuple[str, str]
"""Namespace (empty for cluster-wide objects) and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object came, changed or went."""

    version: int
    resource: str
    before: Json | None
    """None when the object is new."""
    after: Json | None
    """None when the object is gone."""


class ObjectStore:
    """Objects by resource and key.

    Objects are never changed in place, so whoever holds one may keep it.
    """

    def __init__(self, first_version: int, history_changes: int = HISTORY_CHANGES) -> None:
        """Make an empty store.

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
        """The version of the newest change."""
        return self._version

    def put(self, resource: str, item: Json) -> None:
        """Add or replace an object; one that is the same as before is no change."""
        key = _key(item)
        objects = self._objects.setdefault(resource, {})
        before = objects.get(key)
        if before is not None and _without_version(before) == item:
            return
        metadata = {**item["metadata"], "resourceVersion": str(self._version + 1)}
        objects[key] = {**item, "metadata": metadata}
        self._record(resource, before, objects[key])

    def remove(self, resource: str, key: Key) -> None:
        """Remove an object; nothing happens when there is none."""
        before = self._objects.get(resource, {}).pop(key, None)
        if before is not None:
            metadata = {**before["metadata"], "resourceVersion": str(self._version + 1)}
            self._record(resource, {**before, "metadata": metadata}, None)

    def get(self, resource: str, key: Key) -> Json | None:
        """One object, or None."""
        return self._objects.get(resource, {}).get(key)

    def items(self, resource: str, namespace: str | None = None) -> list[Json]:
        """The objects of a resource in order of namespace and name.

        Args:
            resource: such as `pods`.
            namespace: None means all.
        """
        objects = self._objects.get(resource, {})
        return [objects[key] for key in sorted(objects) if namespace is None or key[0] == namespace]

    def changes_after(self, version: int, resource: str) -> list[Change]:
        """The changes of a resource behind a version, oldest first.

        Raises:
            ApiError: 410, they are no longer kept, or the version is from another run of the server.
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
        """Call `listener` after each change; returns what ends that."""
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
