"""Whether the API server is reached: what says so, how soon it is noticed, and how seldom it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from edge_agent.autonomy.upward.uplink import FIRST_S, PROBE_S, QUIET_S, RETRY_S, Uplink

pytestmark = pytest.mark.looptime


class Way:
    """What is asked: it answers, refuses or is silent."""

    def __init__(self) -> None:
        self.state = "up"
        self.asked: list[float] = []
        self.turned: list[tuple[float, bool]] = []
        self.uplink = Uplink(self.probe, self.turn)

    async def probe(self) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        if self.state == "refused":
            raise OSError("connection refused")
        if self.state == "silent":
            await asyncio.sleep(3600)

    def turn(self, up: bool) -> None:
        self.turned.append((asyncio.get_running_loop().time(), up))


@asynccontextmanager
async def running() -> AsyncIterator[Way]:
    """One that has answered once; made in the test itself, whose time alone is not the real one."""
    made = Way()
    task = asyncio.get_running_loop().create_task(made.uplink.run())
    await asyncio.sleep(0.001)
    yield made
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_it_is_away_until_it_has_answered() -> None:
    way = Way()
    assert not way.uplink.is_up
    assert "has not answered yet" in way.uplink.words()


@pytest.mark.parametrize(("state", "wait_s"), [("up", 0.0), ("refused", 0.0), ("silent", FIRST_S)])
async def test_after_a_start_nobody_waits_long(state: str, wait_s: float) -> None:
    way = Way()
    way.state = state
    loop = asyncio.get_running_loop()
    task = loop.create_task(way.uplink.run())
    began_s = loop.time()
    await way.uplink.known()
    assert loop.time() - began_s == pytest.approx(wait_s, abs=0.01)
    assert way.uplink.is_up is (state == "up")
    if state == "silent":
        way.uplink.heard()  # late, and as good
        assert way.uplink.is_up
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_who_starts_without_it_says_so_once() -> None:
    way = Way()
    way.state = "silent"
    task = asyncio.get_running_loop().create_task(way.uplink.run())
    await asyncio.sleep(60)
    assert [up for _, up in way.turned] == [False]
    way.state = "up"
    await way.uplink.back()
    assert [up for _, up in way.turned] == [False, True]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_while_something_comes_it_is_not_asked() -> None:
    async with running() as way:
        for _ in range(60):
            await asyncio.sleep(1)
            way.uplink.heard()
        assert len(way.asked) == 1
        await asyncio.sleep(QUIET_S + 0.1)
        assert len(way.asked) == 2


async def test_silence_is_noticed_in_time() -> None:
    async with running() as way:
        way.uplink.heard()
        way.state, began_s = "silent", asyncio.get_running_loop().time()
        await way.uplink.gone()
        assert asyncio.get_running_loop().time() - began_s <= QUIET_S + PROBE_S + 0.1
        assert way.uplink.reason == "no answer within 2 s"


async def test_who_doubts_has_it_asked_at_once() -> None:
    async with running() as way:
        way.state, began_s = "refused", asyncio.get_running_loop().time()
        way.uplink.doubt()
        await way.uplink.gone()
        assert asyncio.get_running_loop().time() - began_s < 0.01
        assert way.uplink.words().endswith(": connection refused")


async def test_while_it_is_away_it_is_asked_now_and_then() -> None:
    async with running() as way:
        way.state = "refused"
        way.uplink.doubt()
        await asyncio.sleep(600)
        gaps = [after - before for before, after in zip(way.asked[1:], way.asked[2:], strict=False)]
        assert gaps[0] < 2
        assert 0.7 * RETRY_S < min(gaps[10:]) <= max(gaps[10:]) < 1.3 * RETRY_S
        way.state = "up"
        await way.uplink.back()
        assert [up for _, up in way.turned] == [True, False, True]


async def test_whatever_comes_says_that_it_is_back() -> None:
    async with running() as way:
        way.state = "silent"
        await way.uplink.gone()
        way.uplink.heard()
        assert way.uplink.is_up
        await way.uplink.back()


async def test_a_request_that_doubts_while_all_is_well_costs_one_question() -> None:
    async with running() as way:
        way.uplink.doubt()
        await asyncio.sleep(1)
        assert len(way.asked) == 2
        assert [up for _, up in way.turned] == [True]


async def test_after_hours_it_is_still_asked() -> None:
    async with running() as way:
        way.state = "refused"
        way.uplink.doubt()
        await asyncio.sleep(5 * 3600)
        assert len(way.asked) > 3000
        way.state = "up"
        async with asyncio.timeout(2 * RETRY_S):
            await way.uplink.back()
