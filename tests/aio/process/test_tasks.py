"""Tasks with an owner: what becomes of one that fails, of all of them at the end, and of one that does not end."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tunnel.aio.process import tasks
from tunnel.aio.process.tasks import TaskOwner


async def test_a_task_that_fails_is_logged_and_takes_no_other_with_it() -> None:
    owner = TaskOwner("site")
    go_on = asyncio.Event()
    done: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    async def work() -> None:
        await go_on.wait()
        done.append("work")

    with capture_logs() as logs:
        working = owner.spawn("works", work())
        failing = owner.spawn("fails", fail())
        await asyncio.wait({failing})
        assert len(owner) == 1
        go_on.set()
        await working
    assert done == ["work"]
    (entry,) = logs
    assert entry["event"] == "task failed"
    assert entry["task"] == "site: fails"
    assert isinstance(entry["exc_info"], ZeroDivisionError)
    assert len(owner) == 0
    await owner.aclose()


async def test_a_task_that_was_cancelled_is_no_failure() -> None:
    owner = TaskOwner("site")
    with capture_logs() as logs:
        task = owner.spawn("waits", _forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    assert logs == []
    assert len(owner) == 0


async def test_closing_cancels_all_and_waits_for_their_last_steps() -> None:
    owner = TaskOwner("site")
    ended: list[int] = []

    async def slow_to_end(number: int) -> None:
        try:
            await _forever()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            ended.append(number)

    for number in range(3):
        owner.spawn(f"slow {number}", slow_to_end(number))
    await asyncio.sleep(0)
    await owner.aclose()
    assert sorted(ended) == [0, 1, 2]
    assert len(owner) == 0
    await owner.aclose()  # again: nothing is left to do


async def test_a_task_may_close_its_own_owner() -> None:
    owner = TaskOwner("site")

    async def close() -> None:
        await owner.aclose()

    other = owner.spawn("waits", _forever())
    async with asyncio.timeout(5):
        await owner.spawn("closes", close())
    assert other.cancelled()


async def test_tasks_that_do_not_end_are_named_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "STUCK_S", 0.02)
    owner = TaskOwner("site")
    let_go = asyncio.Event()

    async def stubborn() -> None:
        try:
            await _forever()
        finally:
            await let_go.wait()

    stuck = owner.spawn("stubborn", stubborn())
    owner.spawn("willing", _forever())
    await asyncio.sleep(0)
    with capture_logs() as logs:
        closing = asyncio.ensure_future(owner.aclose())  # noqa: TID251 - awaited below
        async with asyncio.timeout(5):
            while len(logs) < 2:
                await asyncio.sleep(0)
        assert not closing.done()
        let_go.set()
        await closing
    assert stuck.done()
    assert {(entry["event"], tuple(entry["tasks"])) for entry in logs} == {("tasks do not end", ("site: stubborn",))}


async def test_nothing_starts_once_the_owner_is_closed() -> None:
    owner = TaskOwner("site")
    await owner.aclose()
    late = _forever()
    with pytest.raises(RuntimeError, match="site is closed"):
        owner.spawn("late", late)
    with pytest.raises(RuntimeError, match="already"):
        await late  # it was closed, and so warns of nothing


async def _forever() -> None:
    await asyncio.Event().wait()
