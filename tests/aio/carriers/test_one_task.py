"""A task inside an operation that may never end: `cut` takes it out, and is no cancellation by the task's owner."""

from __future__ import annotations

import asyncio

import pytest

from tunnel.aio.carriers.one_task import OneTask, Operation


class Cut(Exception):
    """How a user of OneTask tells that it was taken out."""


class Carrier:
    """Notes what it is told of failures."""

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.told: list[tuple[str, bool]] = []

    def begin(self) -> None:
        if self.closed:
            raise Cut

    def failed(self, error: BaseException, by_owner: bool) -> None:
        self.told.append((type(error).__name__, by_owner))
        if isinstance(error, asyncio.CancelledError) and not by_owner:
            raise Cut from None


async def _operate(direction: OneTask, inside: asyncio.Event, end: asyncio.Event) -> str:
    with Operation(Carrier(), direction):
        inside.set()
        await end.wait()
    return "done"


class Running:
    """One that runs in a task of its own."""

    def __init__(self, direction: OneTask) -> None:
        self.inside, self.end = asyncio.Event(), asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(_operate(direction, self.inside, self.end))


async def test_an_operation_that_ends_by_itself() -> None:
    direction = OneTask("read")
    operation = Running(direction)
    await operation.inside.wait()
    assert direction.busy
    operation.end.set()
    assert await operation.task == "done"
    assert not direction.busy


async def test_a_cut_is_told_apart_from_a_cancellation_and_leaves_none_behind() -> None:
    direction = OneTask("read")
    operation = Running(direction)
    await operation.inside.wait()
    direction.cut()
    direction.cut()
    with pytest.raises(Cut):
        await operation.task
    assert operation.task.cancelling() == 0


async def test_the_owners_cancellation_goes_through() -> None:
    direction = OneTask("read")
    operation = Running(direction)
    await operation.inside.wait()
    operation.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await operation.task
    assert not direction.busy


@pytest.mark.parametrize("cut_first", [True, False])
async def test_the_owners_cancellation_wins_over_a_cut(cut_first: bool) -> None:
    direction = OneTask("read")
    operation = Running(direction)
    await operation.inside.wait()
    for step in (direction.cut, operation.task.cancel)[:: 1 if cut_first else -1]:
        step()
    with pytest.raises(asyncio.CancelledError):
        await operation.task
    assert operation.task.cancelled()


async def test_a_cut_while_the_result_is_on_its_way_does_not_reach_what_comes_after() -> None:
    direction = OneTask("read")
    operation = Running(direction)
    await operation.inside.wait()
    operation.end.set()
    direction.cut()
    with pytest.raises(Cut):
        await operation.task
    assert await _operate(direction, asyncio.Event(), operation.end) == "done"


async def test_a_time_limit_around_an_operation_is_the_owners() -> None:
    direction = OneTask("read")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await _operate(direction, asyncio.Event(), asyncio.Event())


async def test_a_cut_with_nobody_inside_does_nothing() -> None:
    direction = OneTask("read")
    direction.cut()
    end = asyncio.Event()
    end.set()
    assert await _operate(direction, asyncio.Event(), end) == "done"


async def test_a_second_task_is_a_fault_of_the_caller() -> None:
    direction = OneTask("read")
    operation = Running(direction)
    await operation.inside.wait()
    with pytest.raises(RuntimeError, match="two tasks read"):
        await _operate(direction, asyncio.Event(), asyncio.Event())
    direction.cut()
    with pytest.raises(Cut):
        await operation.task


async def test_no_operation_begins_where_none_may() -> None:
    direction, carrier = OneTask("read"), Carrier(closed=True)
    with pytest.raises(Cut), Operation(carrier, direction):
        raise AssertionError("not reached")
    assert not direction.busy
    assert carrier.told == []


async def test_a_failure_is_told_and_may_pass() -> None:
    direction, carrier = OneTask("read"), Carrier()
    with pytest.raises(ValueError, match="x"), Operation(carrier, direction):
        raise ValueError("x")
    assert not direction.busy
    assert carrier.told == [("ValueError", False)]
