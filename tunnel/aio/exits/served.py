"""What is being served at this end, and the end of what the box's configuration does not allow any more.

Streams of the tunnel, ports that kubectl forwards, commands and logs all stand in such a list: a reload ends each of
them in the same way, by the same kind of error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunnel.core.wire.errors import Code, OpenRefused


def not_allowed_any_more(what: object) -> OpenRefused:
    """Returns the error that ends what was reached under earlier rules."""
    return OpenRefused(f"{what} is not allowed any more at this end", Code.NOT_ALLOWED)


@dataclass(slots=True, eq=False)
class _Holder:
    """Something that is served by one task."""

    task: asyncio.Task[Any]
    objection: Callable[[], OpenRefused | None]
    tell: Callable[[OpenRefused], None]
    refusal: OpenRefused | None = None
    """Why it may not go on; None while it may."""


class Served:
    """Everything that is served under one configuration."""

    def __init__(self) -> None:
        self._holders: set[_Holder] = set()

    @contextmanager
    def hold(
        self, objection: Callable[[], OpenRefused | None], tell: Callable[[OpenRefused], None] = lambda _refusal: None
    ) -> Iterator[None]:
        """Lets a block serve something, and cancels it once a `review` finds that it may not go on.

        Args:
            objection: returns why it may not go on; None when it may.
            tell: tells the other side at once, before the block has ended.

        Raises:
            OpenRefused: the objection. It takes the place of whatever else the block ends with.
        """
        task = asyncio.current_task()
        assert task is not None
        holder = _Holder(task, objection, tell)
        self._holders.add(holder)
        cause: BaseException | None = None
        try:
            yield
        except (asyncio.CancelledError, Exception) as error:
            if holder.refusal is None:
                raise
            cause = error
        finally:
            self._holders.discard(holder)
        if holder.refusal is not None:
            task.uncancel()
            raise holder.refusal from cause

    def review(self) -> int:
        """Ends what may not go on. It must be called whenever the configuration has changed.

        Returns:
            How many were ended.
        """
        ended = 0
        for holder in tuple(self._holders):
            if holder.refusal is None and (refusal := holder.objection()) is not None:
                holder.refusal = refusal
                holder.tell(refusal)
                holder.task.cancel()
                ended += 1
        return ended
