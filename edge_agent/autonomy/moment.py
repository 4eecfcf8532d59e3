"""A moment that is told by the clock as it goes now: one that was wrong when it came, and was set since, does no harm.

A node without a battery for its clock boots in 1970, or whenever it was off, and has the time some seconds or days
later. What is compared here is compared by the loop's clock, which nobody sets.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Moment:
    """When something happened, in this process."""

    __slots__ = ("_at_s",)

    def __init__(self) -> None:
        """Takes the moment that it is now."""
        self._at_s = asyncio.get_running_loop().time()

    def shown(self) -> datetime:
        """Returns when that was, in UTC."""
        return datetime.now(UTC) - timedelta(seconds=asyncio.get_running_loop().time() - self._at_s)
