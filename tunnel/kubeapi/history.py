"""Keeps the latest changes of one kind of object, for watches that lag or come back. It is pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """The record of one object that came, changed or went."""

    version: int
    before: T | None
    """The object as it was; None when it is new."""
    after: T | None
    """The object as it is now; None when it is gone."""
    again: bool = False
    """Whether a watch that comes back at this very version is told once more, since it may have been cut off between
    this change and another of the same version.
    """


class History(Generic[T]):
    """The changes, oldest first. Their versions never go down.

    A position in it is the number of changes, from the first one ever, that are before it.
    """

    __slots__ = ("_changes", "_forgot_again", "_forgotten", "held_bytes", "oldest")

    def __init__(self, oldest: int) -> None:
        """Begins without changes; `oldest` is the version of now."""
        self._changes: deque[_Kept[T]] = deque()
        self._forgotten = 0
        """How many changes are not kept any more."""
        self._forgot_again: int | None = None
        """The version of the newest of these, if it is one that is told again."""
        self.held_bytes = 0
        """The memory that the changes hold."""
        self.oldest = oldest
        """The version from which on all changes are kept."""

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def end(self) -> int:
        """Returns the position behind the newest change."""
        return self._forgotten + len(self._changes)

    @property
    def oldest_at_s(self) -> float:
        """Returns when the oldest change was added. There must be one."""
        return self._changes[0].at_s

    def add(self, change: Change[T], held_bytes: int, at_s: float = 0.0) -> None:
        """Keeps a change, which holds so much memory that nothing else holds. `at_s`: for `oldest_at_s`."""
        self._changes.append(_Kept(change, held_bytes, at_s))
        self.held_bytes += held_bytes

    def forget_one(self) -> int:
        """Forgets the oldest change, and returns the bytes that it held. There must be one."""
        kept = self._changes.popleft()
        self._forgotten += 1
        self.held_bytes -= kept.held_bytes
        self.oldest = kept.change.version
        self._forgot_again = kept.change.version if kept.change.again else None
        return kept.held_bytes

    def position(self, version: int) -> int:
        """Returns where whoever has heard everything up to a version goes on; -1 where that is not kept as a whole.

        The caller must have made sure that it is `oldest` or newer.
        """
        changes = self._changes
        first = bisect_right(changes, version, key=_version)
        while first and changes[first - 1].change.version == version and changes[first - 1].change.again:
            first -= 1
        if first == 0 and self._forgot_again == version:
            return -1  # one of those that are told again is not kept any more
        return self._forgotten + first

    def since(self, position: int, at_most: int | None = None) -> list[Change[T]] | None:
        """Returns the changes behind a position, oldest first; None when some of them are not kept any more.

        `at_most`: how many are returned, the oldest of them; None means all.
        """
        start = position - self._forgotten
        if start < 0:
            return None
        stop = None if at_most is None else start + at_most
        return [kept.change for kept in islice(self._changes, start, stop)]


# Internal


class _Kept(NamedTuple, Generic[T]):
    change: Change[T]
    held_bytes: int
    at_s: float


def _version(kept: _Kept[T]) -> int:
    return kept.change.version
