"""The verdict, and the warning for each thing that is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.operate.agent_book import AgentBook, Tally
from cloud_server.operate.status import Sources, Status
from cloud_server.trust.administration import ListedAgent
from cloud_server.trust.records import AgentRecord, Sighting
from cloud_server.trust.user_administration import Access
from protos import tunnel_pb2
from tests.support.pieces import pieces_s
from tunnel.aio.identity.validity import Validity, Watched
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.process.parts import Part, Parts
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.wire.faults import CANNOT_LISTEN, FaultError

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


class FakeConfig:
    fault = ""
    needs_restart: list[str] = []  # noqa: RUF012

    def as_json(self) -> dict[str, Any]:
        return {"fault": self.fault or None}


class FakeAudit:
    fault = ""
    lost = 0
    refuses = False


def counted(**changes: Any) -> Callable[[], Any]:
    async def tally() -> Tally:
        made = Tally(up=2)
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    return tally


def sources() -> Sources:
    return Sources(
        version="1",
        since=NOW - DAY,
        server_id="s",
        config_path="/etc/longline/cloud-server.toml",
        agents=counted(),
        joined_at=lambda _name: NOW - DAY,
        opens=lambda: 1,
        parts=Parts(),
        certificates=list,
        users=list,
        access=lambda: Access(known=1, with_access=1, next="ann", next_end=NOW),
        late_agents=list,
        config=FakeConfig(),
        policy=FakeConfig(),
        policy_missing=lambda: False,
        audit=FakeAudit(),  # type: ignore[arg-type]
        lost_lines=lambda: 0,
        store_fault=lambda: "",
        unreadable=lambda: 0,
        issuer_away=lambda: "",
        cluster_away=lambda: "",
        cluster_ages_s=dict,
        limits=lambda: [LimitUse("tunnel_waiting", 640, 3)],
    )


def certificate(name: str, left: timedelta) -> Watched:
    validity = Validity(NOW - 300 * DAY, NOW + left)
    return Watched(name=name, what=f"the certificate {name}", validity=validity, remedy="renew it")


async def told(**changes: Any) -> dict[str, Any]:
    return await Status(replace(sources(), **changes)).as_json()


async def test_all_is_well() -> None:
    status = await told()
    assert status["limits"] == [{"name": "tunnel_waiting", "limit": 640, "used": 3}]
    assert (status["verdict"], status["warnings"]) == ("good", [])
    assert status["line"] == "2 of 2 agents connected, 1 connection open; no warnings"
    assert (await told(agents=counted(up=0)))["line"].startswith("no agent has joined")


class _Fault(FakeConfig):
    fault = "line 3: no such key"


class _Restart(FakeConfig):
    needs_restart = ["tunnel.listen: changed"]  # noqa: RUF012


class _Lossy(FakeAudit):
    lost = 3


class _Stuck(FakeAudit):
    fault = "the disk is full"


class _Refusing(_Stuck):
    refuses = True


@pytest.mark.parametrize(
    ("changes", "verdict", "code", "text"),
    [
        ({"config": _Fault()}, "warning", "LL1004", "no such key"),
        ({"config": _Restart()}, "warning", "LL6015", "tunnel.listen"),
        ({"audit": _Lossy()}, "warning", "LL6014", "3 audit records"),
        ({"audit": _Stuck()}, "warning", "LL6014", "the disk is full"),
        ({"audit": _Refusing()}, "bad", "LL6014", "the disk is full"),
        ({"lost_lines": lambda: 5}, "warning", "LL6006", "5 log lines"),
        ({"store_fault": lambda: "it cannot be read"}, "bad", "LL2024", "cannot be read"),
        ({"unreadable": lambda: 2}, "warning", "LL2025", "2 records"),
        (
            {"cluster_away": lambda: "Node: refused", "cluster_ages_s": lambda: {"Node": 300.0}},
            "warning", "LL5018", "no news for 300 s",
        ),
        ({"issuer_away": lambda: "no route; those of noon stay"}, "warning", "LL2061", "those of noon stay"),
        ({"certificates": lambda: [certificate("server", 5 * DAY)]}, "warning", "LL2003", "server"),
        ({"certificates": lambda: [certificate("server", -DAY)]}, "bad", "LL2001", "expired"),
        ({"users": lambda: [certificate("ann", -DAY)]}, "warning", "LL2001", "ann"),
        ({"late_agents": lambda: ["box-7"]}, "warning", "LL2020", "box-7"),
        ({"agents": counted(up=0, away=["box-7", "box-8"])}, "bad", "LL4002", "none of 2 agents is connected"),
        ({"agents": counted(never_came=[f"box-{n}" for n in range(7)])}, "warning", "LL4002", "box-4 and 2 more"),
        ({"agents": counted(facts={"LL2018": ["box-7"]})}, "warning", "LL2018", "clock"),
    ],
)  # fmt: skip
async def test_what_is_wrong_has_a_code_and_a_remedy(
    changes: dict[str, Any], verdict: str, code: str, text: str
) -> None:
    status = await told(**changes)
    (warning,) = status["warnings"]
    assert (status["verdict"], warning["code"]) == (verdict, code)
    assert text in warning["text"]
    assert warning["remedy"]
    assert (verdict == "bad") == status["line"].startswith(warning["text"])


async def test_what_is_no_reason_to_worry() -> None:
    just_started = {"since": datetime.now(UTC), "agents": counted(up=0, away=["box-7"])}
    just_joined = {"agents": counted(never_came=["box-7"]), "joined_at": lambda _name: datetime.now(UTC)}
    for changes in (just_started, just_joined, {"agents": counted(away=["box-7"])}):
        assert (await told(**changes))["verdict"] == "good"


async def test_a_part_that_is_down_is_told_with_its_cause() -> None:
    async def taken() -> None:
        raise FaultErrorOfPart("the port is in use", CANNOT_LISTEN)

    parts = Parts()
    part: Part = parts.want("fleet", taken)
    await part.tried.wait()
    status = await told(parts=parts)
    await parts.aclose()
    assert status["parts"] == [{"name": "fleet", "up": False, "fault": "the port is in use"}]
    (warning,) = status["warnings"]
    assert (warning["code"], warning["remedy"]) == ("LL6002", "longline explain LL6002")


class FaultErrorOfPart(FaultError, OSError):
    """What a listener raises."""


class Many:
    """Agents that joined, each seen once."""

    def __init__(self, count: int) -> None:
        self._names = [f"box-{number}" for number in range(count)]
        self.record = AgentRecord(name="", joined=NOW, spki_sha256="ab" * 32, validity=Validity(NOW, NOW + 7 * DAY))
        self.sighting = Sighting(last_seen=NOW, address="192.0.2.1:1", version="1", reason="it was reset")

    def names(self) -> list[str]:
        return self._names

    agent_names = names

    def joined(self, name: str) -> datetime | None:
        return NOW

    def validity(self, name: str) -> Validity | None:
        return self.record.validity

    def agent(self, name: str) -> ListedAgent | None:
        return ListedAgent(name=name, record=self.record, unreadable="", sighting=self.sighting)

    def get(self, name: str) -> Sighting | None:
        return self.sighting


class _Session:
    """Enough of a session to be in the directory."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()


async def test_five_thousand_agents_are_counted_without_holding_the_loop() -> None:
    many, directory = Many(5000), MemoryDirectory()
    agents = Agents(many, directory)
    session: TunnelSession = _Session()  # type: ignore[assignment]
    for name in many.names()[:4000]:
        agents.took(name, session, tunnel_pb2.Hello(version="1"), "192.0.2.1:1")
    book = AgentBook(agents, many, many, lambda _name: ())
    async with pieces_s() as measured:
        began_s = time.thread_time()
        status = await told(agents=book.tally)
        took_s = time.thread_time() - began_s
    assert (status["agents"], status["verdict"]) == ({"joined": 5000, "connected": 4000, "away": 1000}, "good")
    assert took_s < 0.3
    assert max(measured) < 0.02 * 3, "a collection of garbage may fall into one of them"
