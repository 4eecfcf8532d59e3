"""Finds which objects have a name: nearly always one has it, and there are tens of thousands of names."""

from __future__ import annotations

from collections.abc import Hashable

from cloud_server.kubernetes.objects import Key


class FoundBy:
    """The keys of the objects that have a name, or an address."""

    def __init__(self) -> None:
        self._one: dict[Hashable, Key] = {}
        """The key of each name that one object has. A set with one key in it would take 216 bytes more."""
        self._more: dict[Hashable, set[Key]] = {}
        """All keys of each name that several objects have."""

    def add(self, name: Hashable, key: Key) -> None:
        """Notes that an object has a name."""
        if name in self._more:
            self._more[name].add(key)
        elif self._one.setdefault(name, key) != key:
            self._more[name] = {self._one.pop(name), key}

    def discard(self, name: Hashable, key: Key) -> None:
        """Notes that an object does not have a name any more."""
        if (keys := self._more.get(name)) is not None:
            keys.discard(key)
            if len(keys) == 1:
                del self._more[name]
                self._one[name] = keys.pop()
        elif self._one.get(name) == key:
            del self._one[name]

    def get(self, name: Hashable) -> list[Key]:
        """Returns the keys of the objects that have a name, in order; empty when none has it."""
        if (key := self._one.get(name)) is not None:
            return [key]
        return sorted(self._more.get(name, ()))
