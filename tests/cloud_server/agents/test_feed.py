"""Changes for those who follow them."""

from __future__ import annotations

import asyncio

import pytest

from cloud_server.agents.feed import MAX_LAG, Feed, FollowerTooSlow
from tests.support.waits import eventually


async def test_a_follower_that_leaves_is_forgotten() -> None:
    feed: Feed[int] = Feed()

    async def listen() -> None:
        async for _ in feed.follow():
            pass

    task = asyncio.get_running_loop().create_task(listen())
    await eventually(lambda: feed.followed)
    task.cancel()
    await asyncio.wait([task])
    assert not feed.followed


async def test_a_follower_that_is_too_slow_is_told_so_and_holds_up_nobody() -> None:
    feed: Feed[int] = Feed()
    heard: dict[str, int] = {"slow": 0, "quick": 0}
    go_on = asyncio.Event()

    async def listen(who: str) -> None:
        async for _ in feed.follow():
            heard[who] += 1
            if who == "slow":
                await go_on.wait()

    loop = asyncio.get_running_loop()
    slow, quick = loop.create_task(listen("slow")), loop.create_task(listen("quick"))
    await eventually(lambda: len(feed._followers) == 2)
    for number in range(2 * MAX_LAG):
        feed.tell(number)
        await asyncio.sleep(0)
    await eventually(lambda: heard["quick"] == 2 * MAX_LAG)
    assert heard["slow"] == 1
    assert max(queue.qsize() for queue in feed._followers) == MAX_LAG + 1
    go_on.set()
    with pytest.raises(FollowerTooSlow):
        await slow
    assert heard["slow"] == 1 + MAX_LAG
    assert len(feed._followers) == 1, "it is to follow anew"
    quick.cancel()
    await asyncio.wait([quick])
