"""One direction of a call: it has one owner task, which can be taken out of a gRPC operation that may never end.

grpc.aio gives no way to interrupt a pending read or write from outside; cancelling the task inside does it, as
`asyncio.timeout` does, and is told apart here from a cancellation that the task's owner asked for.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol


class OneTask:
    """Guards the operations of one direction: `with Operation(carrier, direction): await ...`."""

    __slots__ = ("_cancelling", "_cut", "_task", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._cut = False

    @property
    def busy(self) -> bool:
        """Returns whether a task is inside an operation."""
        return self._task is not None

    def enter(self) -> None:
        """Begins an operation in the current task.

        Raises:
            RuntimeError: another task is inside; gRPC would fail at random, so that this is a fault of the caller.
        """
        if self._task is not None:
            raise RuntimeError(f"two tasks {self._what} the same carrier")
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()

    def cut(self) -> None:
        """Takes the task out of its operation, if there is one inside."""
        if self._task is not None and not self._cut:
            self._cut = True
            self._task.cancel()

    def asked_by_owner(self) -> bool:
        """Returns whether the CancelledError in hand was asked for by someone other than `cut()` and gRPC itself."""
        assert self._task is not None
        return self._task.cancelling() - int(self._cut) > self._cancelling

    def leave(self) -> None:
        """Ends the operation."""
        if self._cut and self._task is not None:
            self._task.uncancel()
        self._cut = False
        self._task = None


class Operable(Protocol):
    """What a carrier does around each of its operations."""

    def begin(self) -> None:
        """Raises CarrierLost when no operation may begin."""
        ...

    def failed(self, error: BaseException, by_owner: bool) -> None:
        """Takes the error that an operation raised: raises the one that stands for it, or returns to let it through.

        `by_owner` says that it is a CancelledError that someone other than `cut()` and gRPC asked for.
        """
        ...


class Operation:
    """One operation of one direction.

    It is no generator, which would cost three times as much: each message has one.
    """

    __slots__ = ("_carrier", "_direction")

    def __init__(self, carrier: Operable, direction: OneTask) -> None:
        self._carrier = carrier
        self._direction = direction

    def __enter__(self) -> None:
        self._carrier.begin()
        self._direction.enter()

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        by_owner = isinstance(error, asyncio.CancelledError) and self._direction.asked_by_owner()
        self._direction.leave()
        if error is not None:
            self._carrier.failed(error, by_owner)
