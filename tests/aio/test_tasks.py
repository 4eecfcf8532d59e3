"""Owners of tasks."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tunnel.aio.tasks import TaskOwner


async def test_finished_waits_for_those_that_run_and_those_that_they_start() -> None:
    owner = TaskOwner("test")
    go_on = asyncio.Event()
    seen: list[str] = []

    async def second() -> None:
        seen.append("second")

    async def first() -> None:
        await go_on.wait()
        owner.spawn("second", second())
        seen.append("first")

    owner.spawn("first", first())
    asyncio.get_running_loop().call_soon(go_on.set)
    await owner.finished()
    assert seen == ["first", "second"]
    assert len(owner) == 0


async def test_closing_cancels_what_runs() -> None:
    owner = TaskOwner("test")
    task = owner.spawn("one", asyncio.sleep(3600))
    await owner.aclose()
    assert task.cancelled()
    with pytest.raises(RuntimeError, match="test is closed"):
        owner.spawn("late", asyncio.sleep(0))


async def test_a_task_that_fails_is_logged_and_takes_no_other_with_it() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    owner = TaskOwner("test")
    other = owner.spawn("other", asyncio.sleep(3600))
    with capture_logs() as logs:
        failing = owner.spawn("one", fail())
        await asyncio.wait({failing})
    assert [line["task"] for line in logs] == ["test: one"]
    assert not other.done()
    await owner.aclose()
