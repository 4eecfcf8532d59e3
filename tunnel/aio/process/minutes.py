"""Says how often the log tells what strangers can cause as often as they like: once a minute for each of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MINUTE_S = 60.0
MAX_KEYS = 1024
"""How many are told apart within a minute; all others are one."""


class Minutes:
    """Counts what happens, by key. What is counted and not told yet when a minute ends is told when something of that
    key happens again, or `tell` is called for it when something of another key does.
    """

    def __init__(self, tell: Callable[[Hashable, int], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`tell` writes a line that stands for so many. Its key is None for those that were not told apart."""
        self._tell = tell
        self._clock = clock
        self._counts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        """The end of the minute of each key, and how many were not told of it; in the order of these ends."""

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, key: Hashable) -> None:
        """Counts one, and tells it, if it is the first of its minute."""
        now_s = self._clock()
        self._end(now_s)
        if key not in self._counts and len(self._counts) >= MAX_KEYS:
            key = None
        if (counted := self._counts.get(key)) is not None:
            self._counts[key] = counted[0], counted[1] + 1
            return
        self._counts[key] = now_s + MINUTE_S, 0
        self._tell(key, 1)

    # Internal

    def _end(self, now_s: float) -> None:
        while self._counts:
            key, (until_s, untold) = next(iter(self._counts.items()))
            if now_s < until_s:
                return
            del self._counts[key]
            if untold:
                # It goes on as it seems: what comes within the next minute is counted at once.
                self._counts[key] = now_s + MINUTE_S, 0
                self._tell(key, untold)
