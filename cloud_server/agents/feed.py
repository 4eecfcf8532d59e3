"""Changes for whoever follows them: a bounded queue for each, and a word to who is too slow for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

MAX_LAG = 1024
"""Changes that a follower may be behind before it is told to start anew."""

T = TypeVar("T")


class FollowerTooSlow(Exception):
    """A follower fell too far behind, and changes were lost: it is to look at everything again."""


class Feed(Generic[T]):
    """Hands each change to all who follow at that moment."""

    def __init__(self) -> None:
        self._followers: set[asyncio.Queue[T | None]] = set()

    @property
    def followed(self) -> bool:
        """Whether anybody follows: what nobody hears of need not be said."""
        return bool(self._followers)

    def tell(self, change: T) -> None:
        """Hands out one change."""
        for queue in self._followers:
            if queue.qsize() < MAX_LAG:
                queue.put_nowait(change)
            elif queue.qsize() == MAX_LAG:
                queue.put_nowait(None)

    async def follow(self) -> AsyncIterator[T]:
        """Yields changes from now on.

        Raises:
            FollowerTooSlow: changes were lost.
        """
        queue: asyncio.Queue[T | None] = asyncio.Queue(MAX_LAG + 1)
        self._followers.add(queue)
        try:
            while (change := await queue.get()) is not None:
                yield change
            raise FollowerTooSlow
        finally:
            self._followers.discard(queue)
