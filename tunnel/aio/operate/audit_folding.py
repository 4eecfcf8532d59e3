"""Folds records that strangers can cause as often as they like: the first at once, then one for each while."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

FOLD_S = 10.0
"""Equal records within so many seconds become one."""
MAX_KEYS = 1024
"""How many keys of each event are kept apart; all others are counted together, without what tells them apart."""


@dataclass(slots=True)
class _Repeated:
    event: str
    fields: dict[str, object]
    count: int = 0
    """How many were counted and not yet written."""


class Folding:
    """Counts the records with each key of the last FOLD_S."""

    def __init__(self, write: Callable[..., None]) -> None:
        """`write` takes an event and its fields."""
        self._write = write
        self._repeated: dict[tuple[str, Hashable], _Repeated] = {}
        self._kept: Counter[str] = Counter()
        """How many keys there are of each event: strangers at the door must not crowd out what users read."""
        self._timer: asyncio.TimerHandle | None = None

    def record(self, event: str, key: Hashable, fields: dict[str, object]) -> None:
        """Takes one record. It is called from the thread of an event loop."""
        entry = self._repeated.get((event, key))
        if entry is None and self._kept[event] >= MAX_KEYS:
            fields = {"others": f"of more than {MAX_KEYS} sources"}
            entry = self._repeated.get((event, None))
            key = None
        if entry is not None:
            entry.count += 1
            return
        self._repeated[event, key] = _Repeated(event, fields)
        self._kept[event] += 1
        self._write(event, **fields, count=1)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FOLD_S, self._on_timer)

    def close(self) -> None:
        """Writes what is only counted so far, and forgets everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flush()
        self._repeated.clear()
        self._kept.clear()

    # Internal

    def _on_timer(self) -> None:
        self._timer = None
        self._flush()
        if self._repeated:
            self._timer = asyncio.get_running_loop().call_later(FOLD_S, self._on_timer)

    def _flush(self) -> None:
        """Writes the counts, and forgets what has not happened again."""
        for key, entry in list(self._repeated.items()):
            if entry.count:
                self._write(entry.event, **entry.fields, count=entry.count)
                entry.count = 0
            else:
                del self._repeated[key]
                self._kept[entry.event] -= 1
