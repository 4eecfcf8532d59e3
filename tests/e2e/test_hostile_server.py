"""The cloud turns on a box: what a real agent gives a server that breaks each rule, floods, lies and asks for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from protos import tunnel_pb2 as pb
from tests.core.frame_factory import FrameFactory as F
from tests.support.cluster import Box, Cluster, cluster
from tests.support.connect_client import ConnectRefused
from tests.support.hostile_server import HostileCarrier, HostileServer, hostile_server
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange, wait_until
from tests.support.waits import eventually
from tunnel.aio.carriers.carrier import CarrierLost
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.limits import MAX_FRAMES, Limits

MIB = 1024 * 1024
GRACE_S = 15.0


@dataclass(kw_only=True)
class Site:
    """A box, what it allows, what it does not, and the true cloud."""

    made: Cluster
    box: Box
    allowed: dict[str, Target]
    forbidden: Target

    @asynccontextmanager
    async def attacked(self, *, flees: bool = False) -> AsyncIterator[HostileServer]:
        """The agent runs, and dials a hostile server. `flees`: when that is gone, the true one is next on its list."""
        try:
            async with hostile_server(self.made.config.parent) as server:
                true = [self.made.tunnel_address] if flees else []
                self.box.configure({"cloud": {"servers": [server.address, *true]}})
                self.box.agent.start()
                yield server
                assert self.box.agent.running
            if flees:
                await asyncio.to_thread(wait_until, self._is_served, "the true cloud reaches the box", GRACE_S)
        finally:
            self.box.agent.kill()
        said = self.box.agent.log_text()
        assert "Traceback" not in said
        assert "a fault in this program" not in said

    def _is_served(self) -> bool:
        try:
            with self.made.dial(f"{BOX}:{self.allowed['echo'].port}") as sock:
                return exchange(sock) == b"ping"
        except ConnectRefused as refused:
            if refused.status != 503:
                raise
            return False


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with cluster() as made, Target("echo") as forbidden, Target("echo") as echo, Target("flood") as flood:
        allowed = {"echo": echo, "flood": flood}
        with Target("stalled", receive_buffer_bytes=64 * 1024) as allowed["stalled"]:
            made.start()
            box = made.join(BOX)
            names = {"echo": "unknown"}  # what a kind of target that is not known was once taken for
            box.configure(
                {
                    "allow": [
                        {"target": f"127.0.0.1:{target.port}"} | ({"service": names[name]} if name in names else {})
                        for name, target in allowed.items()
                    ]
                }
            )
            yield Site(made=made, box=box, allowed=allowed, forbidden=forbidden)


def opening(stream_id: int, target: Target, host: str = "127.0.0.1", **rest: object) -> pb.Frame:
    return F.open(stream_id, host=host, port=target.port, deadline_ms=10_000, **rest)  # type: ignore[arg-type]


# What the box did not allow

SPELLINGS = [
    "127.0.0.1", "localhost", "LOCALHOST.", "::ffff:127.0.0.1", "::ffff:7f00:1", "127.1", "2130706433", "0x7f000001",
    "017700000001", "127.0.0.1.", "127.0.0.1%lo",
]  # fmt: skip
"""The address that the box allows, more or less, on other ports."""
STRANGERS = [
    "127.0.0.2", "::1", "[::1]", "0.0.0.0", "::", "fe80::1%lo", "169.254.169.254", "255.255.255.255", "224.0.0.1",
]  # fmt: skip


REFUSALS = (Code.NOT_ALLOWED, Code.NO_SERVICE, Code.NAME_NOT_FOUND, Code.UNREACHABLE)


async def test_it_reaches_nothing_that_the_box_did_not_allow(site: Site) -> None:
    async with site.attacked(flees=True) as server:
        carrier = await server.carrier()
        await carrier.greet()
        await carrier.send(opening(2, site.allowed["echo"]))
        assert (await carrier.answer(2)).WhichOneof("kind") == "accept"
        stream_id = 2
        hosts = SPELLINGS + STRANGERS
        asked = [opening(0, site.forbidden, host, traffic_class=number % 3) for number, host in enumerate(hosts)]
        asked += [opening(0, site.allowed["echo"], host) for host in STRANGERS]
        asked += [F.open(0, host="127.0.0.1", port=site.made.fleet_port), F.open(0, host="169.254.169.254", port=80)]
        asked += [pb.Frame(open=pb.Open(service=name, deadline_ms=1000)) for name in ("kubelet", "host", "exec", "x")]
        asked += [pb.Frame(open=pb.Open(service="longline/kubelet", deadline_ms=1000))]
        asked += [pb.Frame(open=pb.Open(deadline_ms=1000))]  # a kind of target that is not known
        # What is allowed here, but meant for another box, or forwarded once too often.
        asked += [opening(0, site.allowed["echo"], agent="box-8"), opening(0, site.allowed["echo"], hop=2)]
        for frame in asked:
            stream_id += 2
            frame.stream_id = stream_id
            await carrier.send(frame)
            answer = await carrier.answer(stream_id)
            assert answer.WhichOneof("kind") == "reset", frame
            assert Code.from_wire(answer.reset.code) in REFUSALS, frame
        await carrier.send(F.data(2, b"ping"))
        assert await carrier.data(2, 4) == b"ping", "what it did allow goes on"
        assert site.forbidden.accepted == 0
        carrier.close()


# One packet that breaks a rule ends the session, with a code and a text for the server

Attack = Callable[[HostileCarrier], Awaitable[None]]


def packet(*frames: pb.Frame, seq: int | None = None, ack: int | None = None) -> Attack:
    return lambda carrier: carrier.send(*frames, seq=seq, ack=ack)


async def rubbish(carrier: HostileCarrier) -> None:
    await carrier.send_message(bytes(range(256)) * 100)


async def truncated(carrier: HostileCarrier) -> None:
    await carrier.send_message(carrier.packet([F.open(2, host="a" * 100)])[:-7])


async def second_welcome(carrier: HostileCarrier) -> None:
    await carrier.send_message(carrier.welcome())


FAULTS: dict[str, tuple[Attack, Code]] = {
    "an id of the agent's side": (packet(F.open(1)), Code.PROTOCOL_ERROR),
    "an id that was used": (packet(F.open(2), F.open(2)), Code.PROTOCOL_ERROR),
    "data for no stream": (packet(F.data(2, b"x")), Code.PROTOCOL_ERROR),
    "an accept of nothing": (packet(F.accept(1)), Code.PROTOCOL_ERROR),
    "credit far ahead": (packet(F.open(2, credit=2**40)), Code.FLOW_CONTROL),
    "a packet that skips a number": (packet(F.open(2), seq=5), Code.PROTOCOL_ERROR),
    "an ack for what was not sent": (packet(seq=0, ack=7), Code.PROTOCOL_ERROR),
    "an ack for all that will ever be sent": (packet(seq=0, ack=2**62 - 1), Code.PROTOCOL_ERROR),
    "too many frames": (packet(*([F.ping(1)] * (MAX_FRAMES + 1)), seq=0), Code.PROTOCOL_ERROR),
    "rubbish": (rubbish, Code.PROTOCOL_ERROR),
    "a truncated packet": (truncated, Code.PROTOCOL_ERROR),
    "a second welcome": (second_welcome, Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_ends_the_session_with_its_reason(site: Site, name: str) -> None:
    attack, code = FAULTS[name]
    seen = len(site.box.agent.log_text())
    async with site.attacked() as server:
        carrier = await server.carrier()
        await carrier.greet()
        await attack(carrier)
        assert (await carrier.refusal()).code is code
        logged = await eventually(lambda: "the other side broke the protocol" in site.box.agent.log_text()[seen:])
        assert logged
        (await server.carrier()).close()  # it dials again


async def test_data_beyond_the_window_of_a_target_that_does_not_read(site: Site) -> None:
    async with site.attacked(flees=True) as server:
        carrier = await server.carrier()
        await carrier.greet()
        before = site.box.agent.rss_bytes()
        await carrier.send(opening(2, site.allowed["stalled"]))
        assert (await carrier.answer(2)).WhichOneof("kind") == "accept"
        with suppress(CarrierLost):
            for _ in range(200):
                await carrier.send(F.data(2, bytes(65536)))
        assert (await carrier.refusal()).code is Code.FLOW_CONTROL
        assert site.box.agent.rss_bytes() - before < 40 * MIB


async def test_nothing_of_what_targets_send_is_acknowledged(site: Site) -> None:
    async with site.attacked() as server:
        carrier = await server.carrier()
        await carrier.greet()
        before = site.box.agent.rss_bytes()
        for number in range(1, 5):
            await carrier.send(opening(2 * number, site.allowed["flood"], credit=2**30 - 1), ack=0)
        received = 0
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(1.0):
                    received += sum(len(frame.data) for frame in await carrier.frames())
        assert 0 < received < Limits().max_in_flight_bytes * 1.25 + 8 * MIB
        assert site.box.agent.rss_bytes() - before < 120 * MIB


# Floods


def opens_of(target: Callable[[Site], Target]) -> Callable[[Site, int], list[pb.Frame]]:
    return lambda site, number: [opening(2 * (number * 100 + place) + 2, target(site)) for place in range(100)]


def opens_and_resets(site: Site, number: int) -> list[pb.Frame]:
    opened = opens_of(lambda site: site.allowed["echo"])(site, number)
    return [frame for one in opened for frame in (one, F.reset(one.stream_id))]


def pings(_site: Site, number: int) -> list[pb.Frame]:
    return [F.ping(number)] * 100


def farewells(_site: Site, _number: int) -> list[pb.Frame]:
    return [F.go_away(text="x" * 1000, reconnect_after_ms=2**32 - 1)] * 100


FLOODS = {
    "opens of what is forbidden": opens_of(lambda site: site.forbidden),
    "opens and resets": opens_and_resets,
    "pings": pings,
}


async def flood(site: Site, carrier: HostileCarrier, frames: Callable[[Site, int], list[pb.Frame]]) -> Code | None:
    """A hundred thousand, while the answers are read; the code of the refusal, should there be one."""
    refused: list[Code] = []

    async def read() -> None:
        with suppress(CarrierLost, EOFError):
            try:
                while True:
                    await carrier.frames()
            except SessionRefused as refusal:
                refused.append(refusal.code)

    async with asyncio.timeout(3 * GRACE_S), asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        with suppress(CarrierLost):
            for number in range(1000):
                if reading.done():
                    break
                await carrier.send(*frames(site, number))
        reading.cancel()
    return refused[0] if refused else None


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", FLOODS)
async def test_a_hundred_thousand_of_a_kind_cost_bounded_memory(site: Site, name: str) -> None:
    async with site.attacked(flees=True) as server:
        carrier = await server.carrier()
        await carrier.greet()
        agent = site.box.agent
        before, accepted = agent.rss_bytes(), site.forbidden.accepted
        assert await flood(site, carrier, FLOODS[name]) in (None, Code.LIMIT_EXCEEDED)
        assert agent.rss_bytes() - before < 80 * MIB
        assert site.forbidden.accepted == accepted
        carrier.close()
        await eventually(lambda: agent.descriptors() < 100, GRACE_S, "its connections to be closed")


async def test_more_streams_than_there_may_be(site: Site) -> None:
    async with site.attacked(flees=True) as server:
        carrier = await server.carrier()
        await carrier.greet()
        wanted = Limits().max_streams + 100
        target = site.allowed["stalled"]
        for start in range(0, wanted, 100):
            await carrier.send(*(opening(2 * (start + place) + 2, target, credit=0) for place in range(100)))
        refused, answered = [], 0
        async with asyncio.timeout(2 * GRACE_S):
            while answered < wanted:
                for frame in await carrier.frames():
                    answered += frame.WhichOneof("kind") in ("accept", "reset")
                    if frame.WhichOneof("kind") == "reset":
                        refused.append(Code.from_wire(frame.reset.code))
        assert refused.count(Code.LIMIT_EXCEEDED) >= 100
        carrier.close()


async def test_of_many_farewells_the_first_is_heeded(site: Site) -> None:
    seen = len(site.box.agent.log_text())
    async with site.attacked(flees=True) as server:
        carrier = await server.carrier()
        await carrier.greet()
        with suppress(CarrierLost):
            await carrier.send(F.go_away(text="first", reconnect_after_ms=500))
            for number in range(100):
                await carrier.send(*farewells(site, number))
        log = await asyncio.to_thread(site.box.agent.wait_for_log, "the server takes no new streams", after=seen)
        (said,) = [line for line in log.splitlines() if "the server takes no new streams" in line]
        assert '"reason":"first","reconnect_after_s":0.5' in said
        carrier.close()
