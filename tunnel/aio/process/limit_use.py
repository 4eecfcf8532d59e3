"""How much of a limit is used: what each part with limits tells of itself, for the status and the metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class LimitUse(NamedTuple):
    """How much of a limit is used now."""

    name: str
    """The key of the setting in `[limits]`."""
    limit: int
    used: int
    """What is used of it. Of a limit for each peer, or for each listener: by the one that uses most."""


def most(counts: Iterable[int]) -> int:
    """Returns the highest of counts, one for each peer; 0 without any."""
    return max(counts, default=0)
