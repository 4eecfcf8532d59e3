from __future__ import annotations

import asyncio

import pytest

from cloud_server.opens.attempt import MAX_TRIES, Attempt
from cloud_server.routing.route import Route
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import Target, TcpTarget

DEADLINE_S = 6.0
STREAM = object.__new__(Stream)


class FakeOpener:
    """Refuses at the agents that it is told to, and takes all the time it has where the code is DEADLINE."""

    def __init__(self, **refusals: Code) -> None:
        self.refusals = refusals
        self.asked: list[tuple[str, Target, str, str]] = []
        self.deadlines_s: list[float] = []

    async def open(
        self,
        agent: str,
        target: Target,
        *,
        principal: str,
        frontend: str,
        deadline_s: float = 10.0,
        early_data: bytes = b"",
    ) -> Stream:
        assert not early_data
        self.asked.append((agent, target, principal, frontend))
        self.deadlines_s.append(round(deadline_s, 3))
        code = self.refusals.get(agent)
        if code is None:
            return STREAM
        if code is Code.DEADLINE:
            await asyncio.sleep(deadline_s)
        raise OpenRefused(f"{agent} said no", code)


def routes(*agents: str) -> list[Route]:
    return [Route(agent, TcpTarget("10.0.0.1", 80)) for agent in agents]


async def dial(attempt: Attempt) -> Stream:
    return await attempt.open(principal="ann", frontend="connect", deadline_s=DEADLINE_S)


async def test_one_route_has_all_the_time() -> None:
    opener = FakeOpener()
    attempt = Attempt(opener, routes("a"))
    assert await dial(attempt) is STREAM
    assert opener.asked == [("a", TcpTarget("10.0.0.1", 80), "ann", "connect")]
    assert opener.deadlines_s == [DEADLINE_S]
    assert (attempt.agent, attempt.target) == ("a", TcpTarget("10.0.0.1", 80))


async def test_the_next_route_is_tried_when_one_refuses() -> None:
    attempt = Attempt(FakeOpener(a=Code.REFUSED, b=Code.AGENT_AWAY), routes("a", "b", "c"))
    assert await dial(attempt) is STREAM
    assert attempt.agent == "c"


async def test_the_last_refusal_is_the_answer() -> None:
    attempt = Attempt(FakeOpener(a=Code.AGENT_AWAY, b=Code.REFUSED), routes("a", "b"))
    with pytest.raises(OpenRefused, match="b said no") as caught:
        await dial(attempt)
    assert caught.value.code is Code.REFUSED
    assert attempt.agent == "b"


@pytest.mark.looptime
async def test_tries_share_the_deadline() -> None:
    opener = FakeOpener(a=Code.DEADLINE, b=Code.REFUSED, c=Code.DEADLINE)
    with pytest.raises(OpenRefused, match="c said no"):
        await dial(Attempt(opener, routes("a", "b", "c")))
    assert opener.deadlines_s == [2.0, 2.0, 4.0]
    assert asyncio.get_running_loop().time() == pytest.approx(DEADLINE_S)


async def test_no_more_than_a_few_are_tried() -> None:
    names = [f"agent-{number}" for number in range(MAX_TRIES + 2)]
    opener = FakeOpener(**dict.fromkeys(names, Code.REFUSED))
    with pytest.raises(OpenRefused):
        await dial(Attempt(opener, routes(*names)))
    assert [asked[0] for asked in opener.asked] == names[:MAX_TRIES]
