"""Runs calls that may never return, in daemon threads of their own: a network file system or a name service may be
gone.

asyncio's own pool (`to_thread`) is one for all: calls that hang fill it, and then nothing that needs a thread goes on.
And the interpreter waits for its threads at exit, so that a process with one that hangs does not end. So what a user's
configuration or a peer names (files, programs, host names) is looked at here, and the pool is left to what is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tunnel.core.wire.faults import CALL_HANGS, FaultError
from tunnel.core.wire.spoken import spoken_s

T = TypeVar("T")

WAIT_S = 5.0
"""Seconds that a call may take: a disk that has to spin up answers within seconds, and what takes longer hangs."""
IDLE_S = 5.0
"""Seconds that a thread without work is kept."""


class NotAnswering(FaultError):
    """A call has not returned in time, or there is no thread for it since others do not return."""

    default_fault = CALL_HANGS


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    settle: Callable[[Any, BaseException | None], None] | None
    """Is told in the thread how it went; None when nobody wants to know."""
    started_s: float = field(default=0.0)
    """When it was started, in monotonic time."""


class BlockingCalls:
    """A few threads for one kind of call. They start when there is work, and end when there is none."""

    def __init__(self, name: str, *, threads: int = 1, wait_s: float = WAIT_S) -> None:
        """Starts no thread yet.

        Args:
            name: the name of the threads.
            threads: how many there may be, and so how many calls can hang; others wait for a free one.
            wait_s: seconds that a call may take, its wait for a thread included.
        """
        self._name = name
        self._limit = threads
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._threads = 0
        self._idle = 0

    async def run(self, work: Callable[[], T], *, unwanted: Callable[[T], object] | None = None) -> T:
        """Calls `work` in a thread, waits for it, and returns its result. What it raises is raised here.

        Args:
            work: what may block. One that hangs goes on hanging when this gives up.
            unwanted: gets, in the loop, a result that came too late or for a caller who was cancelled.

        Raises:
            NotAnswering: not within `wait_s`; at once while all threads hang.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settled(result: Any, error: BaseException | None) -> None:
            if future.done():
                if error is None and unwanted is not None:
                    unwanted(result)
            elif error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def settle(result: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settled, result, error)

        job = _Job(work, settle)
        self._submit(job)
        limit = asyncio.timeout(self._wait_s)
        try:
            async with limit:
                try:
                    return await future
                except asyncio.CancelledError:
                    if future.done() and not future.cancelled() and future.exception() is None:
                        settled(future.result(), None)  # it came in the very turn in which it was given up
                    raise
        except TimeoutError:
            if limit.expired():
                raise NotAnswering(f"{self._name}: no answer within {spoken_s(self._wait_s)}") from None
            raise  # the work's own
        finally:
            with self._changed, contextlib.suppress(ValueError):
                self._waiting.remove(job)

    def post(self, work: Callable[[], object]) -> None:
        """Calls `work` in a thread, in its turn, and waits for nothing. It needs no loop; `work` must not raise."""
        with contextlib.suppress(NotAnswering):
            self._submit(_Job(work, None))

    # Internal

    def _submit(self, job: _Job) -> None:
        with self._changed:
            # What is posted is clean-up of calls before it: it waits for a thread however long that takes.
            if job.settle is not None and self._all_hang():
                raise NotAnswering(f"{self._name}: an earlier call has not returned")
            self._waiting.append(job)
            if len(self._waiting) <= self._idle or self._threads >= self._limit:
                self._changed.notify()
                return
            self._threads += 1
            try:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            except RuntimeError as error:
                self._threads -= 1
                if not self._threads:
                    self._waiting.remove(job)
                    raise NotAnswering(f"{self._name}: {error}") from error

    def _all_hang(self) -> bool:
        before_s = time.monotonic() - self._wait_s
        return len(self._running) == self._limit and all(job.started_s < before_s for job in self._running)

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:  # noqa: BLE001 - it is the caller's
                error = raised
            with self._changed:
                self._running.discard(job)
            if job.settle is not None:
                job.settle(result, error)
            del job, result, error  # an idle thread keeps nothing alive

    def _next(self) -> _Job | None:
        with self._changed:
            self._idle += 1
            try:
                if not self._waiting:
                    self._changed.wait_for(lambda: bool(self._waiting), IDLE_S)
                if not self._waiting:
                    self._threads -= 1
                    return None
                job = self._waiting.popleft()
            finally:
                self._idle -= 1
            job.started_s = time.monotonic()
            self._running.add(job)
            return job


async def make_in_thread(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Returns what `make` makes in a thread of asyncio's pool, as `to_thread` does, and loses nothing of it.

    A caller that is cancelled gets nothing, however often it is cancelled, and a thread cannot be called off: `undo`
    then takes back, in such a thread, what was made. Neither may hang.
    """
    loop = asyncio.get_running_loop()
    lock = threading.Lock()
    made: list[T] = []
    wanted = True

    def work() -> T:
        result = make()
        with lock:
            made.append(result)
            late = not wanted
        if late:
            undo(result)
        return result

    def give_up() -> None:
        nonlocal wanted
        with lock:
            wanted = False
            before = list(made)
        for result in before:
            undo(result)

    try:
        return await loop.run_in_executor(None, work)
    except asyncio.CancelledError:
        loop.run_in_executor(None, give_up)
        raise
