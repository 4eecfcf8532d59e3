"""Lets tasks wait for what no event tells of: that a queue is empty, that no stream is left, that a link is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Conditions:
    """Conditions that are looked at when their owner has nothing else to do."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # By waiter: thousands of clients may wait for one link, and give up one by one.
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns at once if the condition holds, else as soon as it does at a `look`."""
        if condition():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = condition
        try:
            await waiter
        finally:
            del self._waiting[waiter]

    def look(self) -> None:
        """Wakes those whose condition holds now. It is called when things have changed."""
        for waiter, condition in self._waiting.items():
            if not waiter.done() and condition():
                waiter.set_result(None)
