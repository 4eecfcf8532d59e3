"""Gives tasks a name and an owner: no task of ours runs that nobody waits for, and none fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from tunnel.core.wire.faults import BUG, TASKS_HANG

_log = structlog.get_logger("tunnel.tasks")

STUCK_S = 5.0
"""A task that takes more seconds to end after it was cancelled is named in the log."""


class TaskOwner:
    """A set of tasks that live no longer than their owner; one that fails is logged and takes no other with it.

    It is for work that comes and goes with the peer (dials, connections); where siblings must fall together, TaskGroup
    fits.
    """

    __slots__ = ("_closed", "_name", "_tasks")

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task that belongs to this owner, and returns it.

        Raises:
            RuntimeError: the owner is closed.
        """
        if self._closed:
            work.close()
            raise RuntimeError(f"{self._name} is closed")
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def finished(self) -> None:
        """Waits until all tasks have ended by themselves."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Cancels all tasks but the current one and waits for their end. No task can be started after it."""
        self._closed = True
        current = asyncio.current_task()
        tasks = {task for task in self._tasks if task is not current}
        for task in tasks:
            task.cancel()
        while tasks:
            _, tasks = await asyncio.wait(tasks, timeout=STUCK_S)
            if tasks:
                _log.warning("tasks do not end", code=TASKS_HANG.code, tasks=sorted(task.get_name() for task in tasks))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task failed", code=BUG.code, task=task.get_name(), exc_info=error)
