"""Defines what a server must remember over restarts, as records that several processes share: one interface for every
engine.

A record is Good or Unreadable, and Unreadable never means that it is gone: whoever asks for an agent whose record is
damaged must not hear that the agent was revoked. While an engine cannot be read at all, what was known last stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tunnel.core.wire.faults import STATE_NOT_WRITABLE, FaultError

T = TypeVar("T")


class StoreUnavailable(FaultError):
    """The store cannot be opened or written now, and nothing was changed; the text is for the operator."""

    default_fault = STATE_NOT_WRITABLE


class Conflict(Exception):
    """A record is not of the version that the change was made for, and nothing was changed."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"the {kind} {key} was changed by somebody else meanwhile")
        self.kind = kind
        self.key = key


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[T]):
    """A kind of record, and how its values are kept as bytes."""

    name: str
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    """Returns the value that some bytes are; raises ValueError, KeyError or TypeError for bytes that are none."""


@dataclass(frozen=True, slots=True)
class Good(Generic[T]):
    """A record that can be read."""

    key: str
    version: int
    """A number that counts up with each change of any record."""
    value: T


@dataclass(frozen=True, slots=True)
class Unreadable(Generic[T]):
    """A record that is there and cannot be read."""

    key: str
    version: int
    reason: str
    last: T | None
    """Its value when this process last could read it; None when it never could."""


Record = Good[T] | Unreadable[T]


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """A change that is to be made to a record."""

    kind: Kind[T]
    key: str
    value: T | None
    """The new value; None when the record is to be taken away."""
    expected: int | None = None
    """The version that the record must have, 0 for no record at all; None for whichever version."""


Watcher = Callable[[str, Record[T] | None, Record[T] | None], None]
"""A function that is given the key, the record before and the record after a change; None where there was, or is, none.
Several changes of a record by another process may be seen as one.
"""


class Store(Protocol):
    """The store of records by kind and key. Look-ups are in memory; everything is called in the event loop."""

    def get(self, kind: Kind[T], key: str) -> Record[T] | None:
        """Returns one record, as it is known now; None when there is none."""
        ...

    def list(self, kind: Kind[T]) -> Sequence[Record[T]]:
        """Returns all records of a kind, in the order of their keys."""
        ...

    def watch(self, kind: Kind[T], watcher: Watcher[T]) -> None:
        """Makes `watcher` be called in the event loop for each change from now on, by whomever it is made."""
        ...

    def catch_up(self) -> None:
        """Takes in what other processes have changed. It is cheap, so that it may precede each refusal of something
        unknown. It never raises: what cannot be read now is told by `fault`, and what was known stands.
        """
        ...

    async def commit(self, *changes: Change[Any]) -> None:
        """Makes all of these changes, or none; `get` has them when this returns.

        Raises:
            Conflict: a record is not of the version that was expected.
            StoreUnavailable: they cannot be written now.
        """
        ...

    @property
    def fault(self) -> str:
        """Returns why the store cannot be read now; empty while it can."""
        ...


def value_of(record: Record[T] | None) -> T | None:
    """Returns what is known of a record: its value, or the last one of a record that cannot be read any more; None when
    there is none.
    """
    if isinstance(record, Unreadable):
        return record.last
    return record.value if record is not None else None
