"""What an agent may ask for, over all its sessions."""

from __future__ import annotations

import pytest

from cloud_server.agents import pace
from cloud_server.agents.pace import AgentPace
from tunnel.core.path.rate import Rate
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import LINKS_TOO_OFTEN
from tunnel.core.wire.limits import Limits

LIMITS = Limits(opens_per_s=1.0, opens_burst=1)


def nobody(_name: str) -> bool:
    return False


def test_an_agent_that_links_too_often_is_told_when_to_come_back_and_costs_no_other() -> None:
    agents = AgentPace(LIMITS, Rate(0.5, 2))
    agents.check_link("box-7", 0.0)
    agents.check_link("box-7", 0.0)
    with pytest.raises(SessionRefused) as caught:
        agents.check_link("box-7", 0.5)
    assert (caught.value.code, caught.value.fault) == (Code.LIMIT_EXCEEDED, LINKS_TOO_OFTEN)
    assert caught.value.retry_after_s == pytest.approx(1.5)
    assert str(caught.value) == "box-7 makes its link anew too often: once in 2 s is allowed"
    agents.check_link("box-8", 0.5)
    agents.check_link("box-7", 2.0)


def test_an_allowance_outlives_its_session_and_follows_the_settings() -> None:
    agents = AgentPace(LIMITS)
    first = agents.allowance("box-7", 0.0, nobody)
    assert [first.opens.take(0.0) for _ in range(2)] == [True, False]
    assert agents.allowance("box-7", 0.0, nobody) is first
    agents.use(Rate(1.0, 1), Rate(1.0, 3))
    assert [first.opens.take(0.0) for _ in range(3)] == [True, True, False]
    assert [agents.allowance("box-8", 0.0, nobody).opens.take(0.0) for _ in range(4)] == [True, True, True, False]
    agents.check_link("box-7", 0.0)
    with pytest.raises(SessionRefused):
        agents.check_link("box-7", 0.0)


def test_agents_without_a_session_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_KEPT", 3)
    agents = AgentPace(LIMITS)
    kept = [agents.allowance(name, 0.0, nobody) for name in ("a", "b", "c")]
    agents.allowance("d", 0.0, lambda name: name == "b")
    assert agents.allowance("b", 0.0, nobody) is kept[1]
    assert agents.allowance("a", 0.0, nobody) is not kept[0]
