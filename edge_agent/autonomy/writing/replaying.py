"""Judges the API server's answers to what is told it late: done, of no use any more, or to be told again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from enum import Enum

from edge_agent.autonomy.upward.passing import Unreached

Send = Callable[[str, str, str, bytes], Awaitable[int]]
"""A function that sends a request: method, path, type of the body, body. It returns the status, and raises Unreached
when there is no answer."""
TEMPORARY = (401, 408, 429)
"""The answers below 500 that say nothing of what was sent: the kubelet's certificate is being renewed, say."""
MAX_REFUSALS = 20
"""How often a 403 is tried again: for some 100 s, since an API server that has just started allows less."""


class Verdict(Enum):
    """What an answer says of what was told."""

    TOLD = "told"
    LATER = "later"
    USELESS = "useless"


NO_ROOM = "no room"
"""Why something was dropped that had to make room for what is newer."""


class Refusals:
    """Counts how often each thing was refused that waits to be told, and what has become of all of them."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}
        self.told = 0
        """How many were told."""
        self.dropped: Counter[str] = Counter()
        """How many were dropped, by why."""

    def verdict(self, key: Hashable, status: int) -> Verdict:
        """Returns what the answer to one of them says.

        Raises:
            Unreached: nothing of it; the others would be answered no better now.
        """
        if status in TEMPORARY or status >= 500:
            raise Unreached(f"the API server answers {status}")
        if status == 403:
            self._counts[key] = self._counts.get(key, 0) + 1
            if self._counts[key] < MAX_REFUSALS:
                return Verdict.LATER
        if status >= 400:
            self.dropped[_USELESS.get(status, f"refused with {status}")] += 1
            return Verdict.USELESS
        self.told += 1
        return Verdict.TOLD

    def forget(self, key: Hashable) -> None:
        """Forgets one, which waits no more."""
        self._counts.pop(key, None)


# Internal

_USELESS = {404: "its object is gone", 409: "its object is another one now"}
"""What an answer says of a status; an event is refused with neither (a second one of its name is written over)."""
