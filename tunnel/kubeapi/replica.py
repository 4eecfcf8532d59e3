"""A replica of the objects that one list of an API server shows, kept current by its watch, and served to others.

It is pure: whoever reads the server feeds it, and whoever serves clients asks it. Three rules make its answers right:

1. It answers nothing before it was filled by a whole list. A list that is partly there would be believed.
2. There is one history, and each watch reads on in it from its own position. Nothing is handed from queue to queue, so
   that nothing can be dropped on the way; whoever is too far behind is told that their past is gone (410).
3. When the server has forgotten what happened since, the replica is filled anew, and what differs becomes changes:
   watches here go on, and hear only those. An object that went and came back under another uid is deleted before it is
   added.

The changes of rule 3 are not those that happened, and several have one version, that of the new list. So a watch may be
cut off between two of the same version, and come back at it. It is then told again of those that may be heard twice:
deletions, of which nothing is done where the object is gone, and additions, which change nothing where it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from tunnel.kubeapi.history import Change, History
from tunnel.kubeapi.status import expired
from tunnel.kubeapi.store import Key
from tunnel.kubeapi.wire_scan import Metadata

HISTORY_CHANGES = 100
"""How many changes are kept at least. This and HISTORY_S are as in an API server (apiserver v0.34, the cacher's
`watch_cache.go`), so that no watch comes back in vain that would not there.
"""
HISTORY_S = 75.0
"""For how many seconds they are kept at least."""
HISTORY_BYTES = 4 * 1024 * 1024
"""The most memory that changes hold in any case: a thousand of objects of 4 KiB."""
LEAST_CHANGES = 4
"""How many changes are kept however large they are, so that watches which run hear of them at all."""
CHANGE_BYTES = 300
"""The memory of a change beside its object."""


class Item(NamedTuple):
    """One object, as it came."""

    metadata: Metadata
    raw: bytes
    version: int
    """The version in `metadata`, as a number."""

    @property
    def key(self) -> Key:
        """Returns its namespace and name."""
        return self.metadata.namespace, self.metadata.name


def item_of(metadata: Metadata, raw: bytes) -> Item:
    """Returns an object.

    Raises:
        ValueError: its version is no number (KEP-5504 says that those of Kubernetes' own types are).
    """
    return Item(metadata, raw, version_of(metadata.version))


def version_of(text: str) -> int:
    """Returns a resourceVersion as a number.

    Raises:
        ValueError: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**128))):
        raise ValueError(f"{text[:40]!r} is no resourceVersion that can be compared")
    return int(text)


class Event(NamedTuple):
    """One change, as a watch hears of it."""

    kind: str
    """`ADDED`, `MODIFIED` or `DELETED`."""
    item: Item
    """The object as it is, or as it last was."""
    version: int
    """The version that it has in the event: of a deletion that of its end, from where a watch would go on."""


def event_of(change: Change[Item], selects: Callable[[Item], bool]) -> Event | None:
    """Returns what a watch hears of a change that sees only some objects; None when it concerns none of those.

    An object that is not selected any more is gone for the watch, and one that is now selected is new (apiserver v0.34
    `storage/cacher/cache_watcher.go`, convertToWatchEvent).
    """
    before = change.before if change.before is not None and selects(change.before) else None
    if change.after is not None and selects(change.after):
        return Event("ADDED" if before is None else "MODIFIED", change.after, change.after.version)
    return Event("DELETED", before, change.version) if before is not None else None


class Replica:
    """The objects of one list, and the latest changes."""

    def __init__(self, history_bytes: int = HISTORY_BYTES) -> None:
        """Begins without a list."""
        self._items: dict[Key, Item] = {}
        self._version: int | None = None
        self._history: History[Item] = History(0)
        self._history_bytes = history_bytes
        self._altered_at = -1
        """The version at which an object was last altered."""
        self._altered: set[Key] = set()
        """The objects that are as they were altered."""
        self._listeners: set[Callable[[], None]] = set()

    @property
    def version(self) -> int | None:
        """Returns the version up to which all is known; None before the first list."""
        return self._version

    @property
    def history_bytes(self) -> int:
        """Returns the memory that the latest changes hold beside the objects."""
        return self._history.held_bytes

    def __len__(self) -> int:
        return len(self._items)

    # What the server says

    def fill(self, version: int, items: Iterable[Item], now_s: float) -> list[Change[Item]]:
        """Takes a whole list, and returns what differs from before, in the order in which watches hear it.

        An object of the same version is no difference, and is shown as it came last all the same: a server that was
        upgraded, or has another schema of a custom resource, shows in another form what nobody has written.
        """
        listed = {item.key: item for item in items}
        if self._version is None:
            self._items, self._version, self._history = listed, version, History(version)
            return []
        for key in tuple(self._altered):  # what was altered stays so until the server has another version
            if key in listed and _is_same(self._items[key], listed[key]):
                listed[key] = self._items[key]
            else:
                self._altered.discard(key)
        changes = _differences(self._items, listed, max(version, self._version))
        self._items = listed
        for change in changes:
            self._keep(change, now_s)
        self.reached(version)
        self.wake()
        return changes

    def put(self, item: Item, now_s: float) -> list[Change[Item]]:
        """Takes an object that is new or has changed, and returns the changes; none when it was known before."""
        before = self._items.get(item.key)
        if before is not None and before.version >= item.version:
            return []
        changes = _replacement(before, item)
        self._items[item.key] = item
        self._altered.discard(item.key)
        return self._heard(changes, item.version, now_s)

    def remove(self, key: Key, version: int, now_s: float) -> list[Change[Item]]:
        """Takes that an object is gone, and returns the changes; none when there was none."""
        before = self._items.pop(key, None)
        self._altered.discard(key)
        changes = [Change(version=version, before=before, after=None)] if before is not None else []
        return self._heard(changes, version, now_s)

    def reached(self, version: int) -> None:
        """Takes that nothing else has happened up to a version, as a bookmark tells."""
        assert self._version is not None
        self._version = max(self._version, version)

    # What is known better here

    def alter(self, item: Item, now_s: float) -> None:
        """Shows an object of the list in another way than the server, under the version that it has.

        Watches that run hear of it. One that comes back cannot tell whether it has: its past is gone.
        """
        assert self._version is not None
        before = self._items[item.key]
        self._items[item.key] = item
        self._altered_at = self._version
        self._altered.add(item.key)
        self._keep(Change(version=self._version, before=before, after=item, again=True), now_s)
        self.wake()

    # What others ask

    def get(self, key: Key) -> Item | None:
        """Returns one object; None when there is none."""
        return self._items.get(key)

    def items(self, selects: Callable[[Item], bool]) -> list[Item]:
        """Returns the objects that are selected, in order of namespace and name."""
        return [item for _, item in sorted(self._items.items()) if selects(item)]

    def position(self, version: int | None) -> int:
        """Returns where in the history a watch goes on that has heard everything up to a version; None for one that
        was just shown all objects.

        Raises:
            ApiError: 410, not all changes since then are kept, or so late a version is not known here.
        """
        if version is None:
            return self._history.end
        oldest = max(self._history.oldest, self._altered_at + 1)
        if self._version is None or not oldest <= version <= self._version:
            raise expired(version, oldest)
        position = self._history.position(version)
        if position < 0:
            raise expired(version, oldest + 1)
        return position

    def has_forgotten(self, version: int) -> bool:
        """Returns whether what happened since a version is not kept here any more, or never was, and a server with a
        longer memory may be asked. It is not where an object was altered since, of which a server knows nothing.
        """
        return self._altered_at < version < self._history.oldest

    def changes_since(self, position: int, at_most: int | None = None) -> list[Change[Item]]:
        """Returns the changes behind a position, oldest first. It moves on by their number.

        `at_most`: how many are returned, the oldest of them; None means all.

        Raises:
            ApiError: 410, not all of them are kept any more.
        """
        changes = self._history.since(position, at_most)
        if changes is None:
            raise expired(0, self._history.oldest)
        return changes

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener` after each change, until the caller calls the function that this returns."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def wake(self) -> None:
        """Calls all listeners, so that they look again."""
        for listener in tuple(self._listeners):
            listener()

    # Internal

    def _heard(self, changes: list[Change[Item]], version: int, now_s: float) -> list[Change[Item]]:
        for change in changes:
            self._keep(change, now_s)
        self.reached(version)
        if changes:
            self.wake()
        return changes

    def _keep(self, change: Change[Item], now_s: float) -> None:
        assert self._version is not None
        history = self._history
        # Versions go up, but for objects that were asked for one by one while the watch went on behind them.
        change = replace(change, version=max(change.version, self._version))
        self._version = change.version
        history.add(change, CHANGE_BYTES + (len(change.before.raw) if change.before is not None else 0), now_s)
        while (len(history) > HISTORY_CHANGES and now_s - history.oldest_at_s > HISTORY_S) or (
            history.held_bytes > self._history_bytes and len(history) > LEAST_CHANGES
        ):
            history.forget_one()


# Internal


def _differences(before: Mapping[Key, Item], after: Mapping[Key, Item], version: int) -> list[Change[Item]]:
    """Returns what turns one list into another, in the order in which watches hear it: what is new or different by its
    version, then what is gone, at the version of the new list.
    """
    changes = [
        change
        for item in sorted(after.values(), key=lambda item: item.version)
        if (old := before.get(item.key)) is None or not _is_same(old, item)
        for change in _replacement(old, item)
    ]
    gone = [item for key, item in before.items() if key not in after]
    return [*changes, *(Change(version=version, before=item, after=None, again=True) for item in gone)]


def _is_same(one: Item, other: Item) -> bool:
    return one.version == other.version and one.metadata.uid == other.metadata.uid


def _replacement(before: Item | None, after: Item) -> list[Change[Item]]:
    """Returns the changes that put an object in the place of another."""
    if before is None or before.metadata.uid == after.metadata.uid:
        return [Change(version=after.version, before=before, after=after)]
    return [
        Change(version=after.version, before=before, after=None),
        Change(version=after.version, before=None, after=after, again=True),
    ]
