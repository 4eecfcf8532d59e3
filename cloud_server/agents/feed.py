"""Hands changes to those that follow them, through a bounded queue for each; a follower that is too slow is told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

MAX_LAG = 1024
"""The number of changes that a follower may be behind before it is told to start anew."""

T = TypeVar("T")


class FollowerTooSlow(Exception):
    """A follower fell too far behind, and changes were lost: it must look at everything again."""


class Feed(Generic[T]):
    """A feed that hands each change to all that follow it at that moment."""

    def __init__(self) -> None:
        self._followers: set[asyncio.Queue[T | None]] = set()

    @property
    def followed(self) -> bool:
        """Returns whether anybody follows. When nobody does, changes need not be made."""
        return bool(self._followers)

    def tell(self, change: T) -> None:
        """Hands one change to all followers. A follower that is `MAX_LAG` changes behind gets it no more, and fails."""
        for queue in self._followers:
            if queue.qsize() < MAX_LAG:
                queue.put_nowait(change)
            elif queue.qsize() == MAX_LAG:
                queue.put_nowait(None)

    async def follow(self) -> AsyncIterator[T]:
        """Yields each change from now on, until the caller stops.

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
