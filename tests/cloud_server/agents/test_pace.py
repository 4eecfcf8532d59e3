"""What an agent may ask for, over all its sessions."""

from __future__ import annotations

import asyncio
import time

import pytest

from cloud_server.agents import pace
from cloud_server.agents.pace import AgentPace
from tunnel.core.path.rate import Rate
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import LINK_FLOODED, LINKS_TOO_OFTEN
from tunnel.core.wire.limits import Limits

LIMITS = Limits(opens_per_s=1.0, opens_burst=1)


def nobody(_name: str) -> bool:
    return False


async def test_an_agent_that_links_too_often_waits_and_then_is_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "MAX_LINK_WAIT_S", 0.2)
    agents, now = AgentPace(LIMITS, Rate(5.0, 2)), 100.0
    for _ in range(2):
        await agents.link("box-7", now)
    started_s = time.monotonic()
    await agents.link("box-7", now)
    assert time.monotonic() - started_s > 0.15, "it waits for its turn"
    with pytest.raises(SessionRefused) as caught:
        await agents.link("box-7", now)
    assert time.monotonic() - started_s > 0.35, "it waits for its refusal"
    assert (caught.value.code, caught.value.fault) == (Code.LIMIT_EXCEEDED, LINKS_TOO_OFTEN)
    assert caught.value.retry_after_s == pytest.approx(0.4)
    assert str(caught.value) == "box-7 makes its link anew too often: once in 0.2 s is allowed"
    await agents.link("box-8", now)
    await agents.link("box-7", now + 1.0)


async def test_few_links_wait_for_their_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_LINK_WAIT_S", 0.2)
    agents = AgentPace(LIMITS, Rate(0.5, 1))
    await agents.link("box-7", 0.0)
    took_s = []

    async def ask() -> None:
        started_s = time.monotonic()
        with pytest.raises(SessionRefused):
            await agents.link("box-7", 0.0)
        took_s.append(time.monotonic() - started_s)

    for _ in range(2):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(pace.MAX_HELD + 3):
                tasks.create_task(ask())
        assert sum(one > 0.15 for one in took_s) == pace.MAX_HELD
        took_s.clear()


async def test_an_agent_that_flooded_its_link_gets_none_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_LINK_WAIT_S", 0.1)
    agents = AgentPace(LIMITS)
    agents.allowance("box-7", 0.0, nobody).barred_until_s = 60.0
    with pytest.raises(SessionRefused) as caught:
        await agents.link("box-7", 10.0)
    assert (caught.value.fault, caught.value.retry_after_s) == (LINK_FLOODED, 50.0)
    await agents.link("box-7", 60.0)


async def test_an_allowance_outlives_its_session_and_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = AgentPace(LIMITS)
    first = agents.allowance("box-7", 0.0, nobody)
    assert [first.opens.take(0.0) for _ in range(2)] == [True, False]
    assert agents.allowance("box-7", 0.0, nobody) is first
    monkeypatch.setattr(pace, "MAX_LINK_WAIT_S", 0.1)
    agents.use(Rate(1.0, 1), Rate(1.0, 3))
    assert [first.opens.take(0.0) for _ in range(3)] == [True, True, False]
    assert [agents.allowance("box-8", 0.0, nobody).opens.take(0.0) for _ in range(4)] == [True, True, True, False]
    await agents.link("box-7", 0.0)
    with pytest.raises(SessionRefused):
        await agents.link("box-7", 0.0)


def test_agents_without_a_session_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_KEPT", 3)
    agents = AgentPace(LIMITS)
    kept = [agents.allowance(name, 0.0, nobody) for name in ("a", "b", "c")]
    agents.allowance("d", 0.0, lambda name: name == "b")
    assert agents.allowance("b", 0.0, nobody) is kept[1]
    assert agents.allowance("a", 0.0, nobody) is not kept[0]
