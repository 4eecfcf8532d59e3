from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloud_server.frontends.exposed import Exposed
from cloud_server.opens.expose_rule import ExposeRule
from cloud_server.opens.live import LiveOpen
from cloud_server.opens.policy import DoorPolicy
from cloud_server.opens.recorded import NoCounts
from tests.support.doors import Doors, Nobody, who
from tests.support.joined import joined
from tests.support.policies import rights_of
from tests.support.principals import user
from tests.support.waits import eventually
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.faults import METADATA_NOT_NAMED
from tunnel.core.wire.limits import Limits
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget
from tunnel.core.wire.target_rule import TargetRule


@asynccontextmanager
async def service() -> AsyncIterator[int]:
    """Something at the server that says hello."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class NoWayOut:
    """No agent is to be reached here."""

    async def open(self, live: LiveOpen) -> Stream:
        raise AssertionError(live.agent)


def exposed(*rules: ExposeRule) -> tuple[Exposed, Doors]:
    doors = Doors(NoWayOut())
    return Exposed(doors.door, rules, lambda name: who().agent(name, "5f3a")), doors


def greeter(port: int) -> ExposeRule:
    return ExposeRule(target=TargetRule.parse(f"127.0.0.1:{port}"), name="greeter", agents=frozenset({"site-a"}))


@pytest.mark.parametrize("by_name", [True, False])
async def test_an_agent_reaches_what_is_exposed_to_it_and_is_who_its_certificate_says(by_name: bool) -> None:
    async with service() as port:
        target: Target = ServiceTarget("greeter") if by_name else TcpTarget("127.0.0.1", port)
        ways, doors = exposed(greeter(port))
        async with joined(ways.acceptor("site-a")) as both:
            stream = await both.server.open(target, deadline_s=5, principal=user("admin"), trace_id="c0ffee")
            assert await stream.read() == b"hello"
            (live,) = doors.live
            await stream.aclose()
            await eventually(lambda: doors.records.of("end"))
    opened, ended = doors.records
    assert opened["event"] == "open"
    for record in (opened, ended):
        assert (record["kind"], record["who"], record["proof"]) == ("agent", "site-a", "certificate:5f3a")
        assert (record["frontend"], record["agent"], record["trace_id"]) == ("expose", "site-a", "c0ffee")
        assert record["resolved"] == f"127.0.0.1:{port}"
    assert (ended["bytes_to_agent"], ended["bytes_from_agent"]) == (5, 0)
    assert live.view().bytes_to_agent == 5
    assert len(doors.live) == 0


@pytest.mark.parametrize("by_name", [True, False])
async def test_another_agent_does_not(by_name: bool) -> None:
    async with service() as port:
        target: Target = ServiceTarget("greeter") if by_name else TcpTarget("127.0.0.1", port)
        async with joined(exposed(greeter(port))[0].acceptor("site-b")) as both:
            with pytest.raises(OpenRefused, match="site-b") as caught:
                await both.server.open(target, deadline_s=5)
    assert caught.value.code is (Code.NO_SERVICE if by_name else Code.NOT_ALLOWED)


LOOPBACK_DENIED = rights_of(
    """
    [[role]]
    name = "no-loopback"
    [[role.deny]]
    targets = ["127.0.0.0/8:*"]
    [[binding]]
    role = "no-loopback"
    groups = ["system:agents"]
    """
)


@pytest.mark.parametrize("way", ["name", "host", "address"])
async def test_what_is_exposed_and_denied_by_its_address_is_sent_nothing(way: str) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):
            heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        rules = (greeter(port), ExposeRule(target=TargetRule.parse(f"localhost:{port}")))
        doors = Doors(NoWayOut(), policy=DoorPolicy(LOOPBACK_DENIED))
        ways = Exposed(doors.door, rules, lambda name: who().agent(name, "5f3a"))
        target: Target = ServiceTarget("greeter") if way == "name" else TcpTarget(
            "localhost" if way == "host" else "127.0.0.1", port
        )  # fmt: skip
        async with joined(ways.acceptor("site-a")) as both:

            async def refused() -> None:
                stream = await both.server.open(target, deadline_s=5, early_data=b"secret")
                await stream.read()

            with pytest.raises(StreamError) as caught:
                await refused()
            assert caught.value.code is Code.NOT_ALLOWED
            await eventually(lambda: doors.records.of("end", "refused"))
    assert b"secret" not in b"".join(heard)
    assert doors.records[-1]["reason"] == "not_allowed"
    assert "no-loopback.deny[0]" in doors.records[-1]["text"]


@pytest.mark.parametrize(
    "target", [TcpTarget("127.0.0.1", 1), TcpTarget("localhost", 7443), TcpTarget("169.254.169.254", 80)]
)
async def test_what_is_not_exposed_is_refused(target: TcpTarget) -> None:
    async with joined(exposed()[0].acceptor("site-a")) as both:
        with pytest.raises(OpenRefused, match=r"this server's \[\[expose\]\] rules") as caught:
            await both.server.open(target, deadline_s=5)
    assert caught.value.code is Code.NOT_ALLOWED


async def test_no_range_exposes_a_metadata_service() -> None:
    wide = exposed(ExposeRule(target=TargetRule.parse("0.0.0.0/0:*")))[0]
    async with joined(wide.acceptor("site-a")) as both:
        for host in ("169.254.169.254", "::ffff:169.254.169.254", "2852039166"):
            with pytest.raises(OpenRefused, match="only a rule for exactly that address") as caught:
                await both.server.open(TcpTarget(host, 80), deadline_s=5)
            assert caught.value.fault is METADATA_NOT_NAMED


async def test_without_a_list_of_agents_it_is_for_all() -> None:
    async with service() as port:
        everyone, _ = exposed(ExposeRule(target=TargetRule.parse(f"127.0.0.1:{port}")))
        async with joined(everyone.acceptor("site-z")) as both:
            stream = await both.server.open(TcpTarget("127.0.0.1", port), deadline_s=5)
            assert await stream.read() == b"hello"
            await stream.aclose()


async def test_a_policy_is_asked_for_what_agents_open_too() -> None:
    async with service() as port:
        doors = Doors(NoWayOut(), policy=Nobody())
        ways = Exposed(doors.door, [greeter(port)], lambda name: who().agent(name, ""))
        async with joined(ways.acceptor("site-a")) as both:
            with pytest.raises(OpenRefused, match="not allowed by rule nobody") as caught:
                await both.server.open(TcpTarget("127.0.0.1", port), deadline_s=5)
    assert caught.value.code is Code.NOT_ALLOWED
    (record,) = doors.records
    assert (record["event"], record["rule"], record["who"]) == ("refused", "nobody", "site-a")


async def test_an_open_and_a_reset_in_one_packet_are_recorded() -> None:
    async with service() as port:
        ways, doors = exposed(greeter(port))
        async with joined(ways.acceptor("site-a")) as both:
            opening = asyncio.get_running_loop().create_task(
                both.server.open(TcpTarget("127.0.0.1", port), deadline_s=5)
            )
            await asyncio.sleep(0)  # it is queued, and not sent
            opening.cancel()
            await asyncio.wait([opening])
            await eventually(lambda: doors.records)
    (record,) = doors.records
    assert (record["event"], record["reason"], record["who"]) == ("refused", "cancelled", "site-a")


class Answers(NoCounts):
    """The counts of answers, by front end and code."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, Code]] = Counter()

    def answered(self, frontend: str, code: Code, seconds: float) -> None:
        self.counts[frontend, code] += 1


async def test_opens_beyond_a_limit_are_counted_and_recorded_folded() -> None:
    ways, doors = exposed()
    answers = Answers()
    doors.door.count_for(answers)
    async with joined(ways.acceptor("site-a"), limits=Limits(opens_per_s=1.0, opens_burst=2)) as both:
        both.agent.on_turned_down = lambda event: ways.turned_down("site-a", event)
        for _ in range(5):
            with pytest.raises(OpenRefused):
                await both.server.open(TcpTarget("127.0.0.1", 1), deadline_s=5)
    folded = [record for record in doors.records if "folded" in record]
    assert len(folded) == 3
    assert answers.counts["expose", Code.LIMIT_EXCEEDED] == 3
    assert {record["folded"] for record in folded} == {("expose", "site-a", "LL4303")}
    assert (folded[0]["event"], folded[0]["who"], folded[0]["text"]) == (
        "refused",
        "site-a",
        "streams are opened too fast",
    )
