"""Calls that may hang: bounded in threads and time, and never in the way of the process's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.support.waits import Deadline, eventually, sooner_than
from tunnel.aio.process import blocking
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering


@contextmanager
def gate() -> Iterator[threading.Event]:
    """What a call hangs at until the test is over."""
    opened = threading.Event()
    try:
        yield opened
    finally:
        opened.set()


async def test_results_and_errors_arrive() -> None:
    calls = BlockingCalls("test")
    assert await calls.run(lambda: 42) == 42

    def fails() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await calls.run(fails)


async def test_one_that_hangs_is_told_and_no_other_thread_is_tried() -> None:
    calls = BlockingCalls("a file", wait_s=0.05)
    before = threading.active_count()
    with gate() as hanging:
        with pytest.raises(NotAnswering, match=r"a file: no answer within 0\.05 s"):
            await calls.run(hanging.wait)
        deadline = Deadline(5)
        while "an earlier call has not returned" not in await refusal_of(calls):  # its thread may have begun late
            assert not deadline.passed()
        for _ in range(100):
            with sooner_than(1, "a refusal"):
                assert "an earlier call has not returned" in await refusal_of(calls)
        assert threading.active_count() <= before + 1
    assert await eventually_runs(calls)


async def refusal_of(calls: BlockingCalls) -> str:
    with pytest.raises(NotAnswering) as caught:
        await calls.run(lambda: None)
    return str(caught.value)


async def eventually_runs(calls: BlockingCalls) -> bool:
    for _ in range(500):
        try:
            return await calls.run(lambda: True)
        except NotAnswering:
            await asyncio.sleep(0.01)
    return False


async def test_a_call_that_waited_in_vain_is_never_made() -> None:
    calls = BlockingCalls("test", wait_s=0.2)
    made: list[int] = []
    with gate() as hanging:
        first = asyncio.get_running_loop().create_task(calls.run(hanging.wait))
        await asyncio.sleep(0)
        with pytest.raises(NotAnswering):
            await calls.run(lambda: made.append(1))
        with pytest.raises(NotAnswering):
            await first
    assert await eventually_runs(calls)
    assert made == []


async def test_others_have_threads_of_their_own() -> None:
    calls = BlockingCalls("test", threads=3)
    with gate() as hanging:
        stuck = [asyncio.get_running_loop().create_task(calls.run(hanging.wait)) for _ in range(2)]
        assert [await calls.run(partial(int, number)) for number in range(20)] == list(range(20))
        assert not any(one.done() for one in stuck)
        hanging.set()
        await asyncio.gather(*stuck)


async def test_what_comes_too_late_is_given_back() -> None:
    calls = BlockingCalls("test", wait_s=0.05)
    late: list[bool] = []
    with gate() as hanging:
        with pytest.raises(NotAnswering):
            await calls.run(hanging.wait, unwanted=late.append)
    await eventually(lambda: late == [True], what="the late result")


async def test_a_cancelled_caller_gets_it_back_too() -> None:
    calls = BlockingCalls("test")
    late: list[str] = []
    begun = threading.Event()
    with gate() as hanging:

        def work() -> str:
            begun.set()
            hanging.wait()
            return "it"

        caller = asyncio.get_running_loop().create_task(calls.run(work, unwanted=late.append))
        await eventually(begun.is_set, what="the call began")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    await eventually(lambda: late == ["it"], what="the late result")


async def test_one_that_is_cancelled_while_the_result_is_on_its_way_gets_it_back() -> None:
    calls = BlockingCalls("test")
    late: list[int] = []
    made: set[int] = set()

    def make(number: int) -> int:
        made.add(number)
        return number

    loop = asyncio.get_running_loop()
    cancelled = 0
    for number in range(200):
        caller = loop.create_task(calls.run(partial(make, number), unwanted=late.append))
        for _ in range(number % 20):
            await asyncio.sleep(0)
        caller.cancel()
        try:
            late.append(await caller)
        except asyncio.CancelledError:
            cancelled += 1
    assert cancelled
    # What was not even begun has no result; of all others none is lost.
    await eventually(lambda: sorted(late) == sorted(made), what="all results")


async def test_what_is_posted_is_done_in_its_turn() -> None:
    calls = BlockingCalls("test", wait_s=0.05)
    done: list[str] = []
    with gate() as hanging:

        def work() -> None:
            hanging.wait()
            done.append("call")

        with pytest.raises(NotAnswering):
            await calls.run(work)
        calls.post(lambda: done.append("close"))
    await eventually(lambda: done == ["call", "close"], what="the clean-up after the call")


async def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "IDLE_S", 0.01)
    calls = BlockingCalls("soon gone")
    await calls.run(lambda: None)
    await eventually(lambda: "soon gone" not in {thread.name for thread in threading.enumerate()}, what="the end")
    assert await calls.run(lambda: 1) == 1


def test_a_process_ends_while_one_hangs() -> None:
    code = """
import asyncio, threading
from tunnel.aio.process.blocking import BlockingCalls
async def main():
    task = asyncio.ensure_future(BlockingCalls("hangs").run(threading.Event().wait))
    await asyncio.sleep(0.05)
    task.cancel()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)
