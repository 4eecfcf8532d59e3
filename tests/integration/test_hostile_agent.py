"""A joined box turns on its server: real frames that break each rule, floods, and lies, beside an honest neighbour."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import grpc
import pytest

from protos import tunnel_pb2 as pb
from tests.core.frame_factory import FrameFactory as F
from tests.support.cluster import Cluster, cluster
from tests.support.hostile_agent import HostileAgent
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange
from tests.support.waits import eventually
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.limits import MAX_FRAMES, Limits

MALLORY = "mallory"
MIB = 1024 * 1024
GRACE_S = 10.0


@dataclass(kw_only=True)
class Town:
    """A server with an honest box, which has a connection open, and a hostile one."""

    made: Cluster
    echo: Target
    connection: socket.socket
    forward: int
    """The port of a static forward to the hostile box."""

    def hostile(self) -> HostileAgent:
        return HostileAgent(self.made.tunnel_address, self.made.boxes[MALLORY].state)

    def another_hostile(self, name: str) -> HostileAgent:
        """A box that joins for this: one that floods its link gets no other for a while."""
        return HostileAgent(self.made.tunnel_address, self.made.join(name).state)

    def client(self) -> socket.socket:
        """Somebody who wants a connection to the hostile box, and reads nothing."""
        sock = socket.create_connection(("127.0.0.1", self.forward))
        sock.setblocking(False)
        return sock

    def neighbour_goes_on(self) -> None:
        """The connection that was open before is good, and so is a new one."""
        assert exchange(self.connection) == b"ping"
        with self.made.dial(f"{BOX}:{self.echo.port}", timeout_s=GRACE_S) as sock:
            assert exchange(sock) == b"ping"


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with cluster() as made, Target("echo") as echo:
        forward = made.forward(MALLORY, "127.0.0.1:1")
        made.configure({"limits": {"links_at_once": 1000}})  # which each test here makes one of, or many
        made.start()
        made.join(MALLORY)
        made.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        made.start_box(BOX)
        with made.dial(f"{BOX}:{echo.port}") as connection:
            yield Town(made=made, echo=echo, connection=connection, forward=forward)


@pytest.fixture(autouse=True)
def unharmed(town: Town) -> Iterator[None]:
    """After each attack: the neighbour goes on, and the server met no fault of its own."""
    seen = len(town.made.server.log_text())
    yield
    town.neighbour_goes_on()
    said = town.made.server.log_text()[seen:]
    assert "Traceback" not in said
    assert "exception" not in said
    assert "a fault in this program" not in said


# One packet that breaks a rule ends the session, with a code and a text on both sides

Attack = Callable[[HostileAgent], Awaitable[None]]


def packet(*frames: pb.Frame, seq: int | None = None, ack: int | None = None) -> Attack:
    return lambda agent: agent.send(*frames, seq=seq, ack=ack)


def message(content: bytes) -> Attack:
    return lambda agent: agent.send_message(content)


async def truncated(agent: HostileAgent) -> None:
    await agent.send_message(agent.packet([F.open(1, host="a" * 100)])[:-7])


async def second_hello(agent: HostileAgent) -> None:
    await agent.send_message(agent.hello())


FAULTS: dict[str, tuple[Attack, Code]] = {
    "an id of the server's side": (packet(F.open(2)), Code.PROTOCOL_ERROR),
    "an id that was used": (packet(F.open(1), F.open(1)), Code.PROTOCOL_ERROR),
    "an id that was passed over": (packet(F.open(9), F.open(7)), Code.PROTOCOL_ERROR),
    "data for no stream": (packet(F.data(1, b"x")), Code.PROTOCOL_ERROR),
    "credit for no stream": (packet(F.credit(2, 1000)), Code.PROTOCOL_ERROR),
    "an accept of nothing": (packet(F.accept(2)), Code.PROTOCOL_ERROR),
    "data before the accept": (packet(F.open(1), F.data(1, b"x")), Code.PROTOCOL_ERROR),
    "stream 0": (packet(F.fin(0)), Code.PROTOCOL_ERROR),
    "an open without a port": (packet(F.open(1, port=0)), Code.PROTOCOL_ERROR),
    "an open without a deadline": (packet(F.open(1, deadline_ms=0)), Code.PROTOCOL_ERROR),
    "a host with line breaks": (packet(F.open(1, host="a\r\nb")), Code.PROTOCOL_ERROR),
    "a text of 500 kB": (packet(F.go_away(text="x" * 500_000)), Code.PROTOCOL_ERROR),
    "credit out of any range": (packet(F.open(1, credit=2**63)), Code.FLOW_CONTROL),
    "credit far ahead": (packet(F.open(1, credit=2**40)), Code.FLOW_CONTROL),
    "a packet that skips a number": (packet(F.ping(1), F.open(1), seq=2), Code.PROTOCOL_ERROR),
    "a packet of number 2^63": (packet(F.open(1), seq=2**63), Code.PROTOCOL_ERROR),
    "an open without a number": (packet(F.open(1), seq=0), Code.PROTOCOL_ERROR),
    "an ack for what was not sent": (packet(seq=0, ack=1), Code.PROTOCOL_ERROR),
    "an ack for all that will ever be sent": (packet(seq=0, ack=2**62 - 1), Code.PROTOCOL_ERROR),
    "too many frames": (packet(*([F.ping(1)] * (MAX_FRAMES + 1)), seq=0), Code.PROTOCOL_ERROR),
    "a truncated packet": (truncated, Code.PROTOCOL_ERROR),
    "a length beyond the message": (message(b"\x1a\xff\xff\xff\xff\x07"), Code.PROTOCOL_ERROR),
    "rubbish": (message(bytes(range(256)) * 100), Code.PROTOCOL_ERROR),
    "a second hello": (second_hello, Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_rule_ends_the_session_with_its_reason(town: Town, name: str) -> None:
    attack, code = FAULTS[name]
    seen = len(town.made.server.log_text())
    async with town.hostile() as agent, asyncio.timeout(GRACE_S):
        await agent.greet()
        await attack(agent)
        refused = await agent.refusal()
    assert refused.code is code
    logged = town.made.server.wait_for_log("the other side broke the protocol", after=seen)
    assert str(refused) in logged.replace('\\"', '"')


async def test_a_message_beyond_a_mebibyte_is_not_read(town: Town) -> None:
    before = town.made.server.rss_bytes()
    async with town.hostile() as agent:
        await agent.greet()
        await agent.send_message(bytes(100 * MIB))
        assert await agent.status() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert town.made.server.rss_bytes() - before < 40 * MIB


# Streams that a client opened to the hostile box


async def past_the_window(agent: HostileAgent, stream_id: int) -> None:
    """Data is counted although nobody reads it: the first 256 KiB are granted, no more."""
    for _ in range(200):
        await agent.send(F.data(stream_id, bytes(65536)))


async def accepted_twice(agent: HostileAgent, stream_id: int) -> None:
    await agent.send(F.accept(stream_id))


async def a_reset_and_then_another_stream(agent: HostileAgent, stream_id: int) -> None:
    await agent.send(F.reset(stream_id), F.data(stream_id + 2, b"more"))


async def credit_that_falls(agent: HostileAgent, stream_id: int) -> None:
    await agent.send(F.credit(stream_id, 10))


async def credit_that_overflows(agent: HostileAgent, stream_id: int) -> None:
    await agent.send(F.credit(stream_id, 2**62 - 1))


async def data_that_is_too_long(agent: HostileAgent, stream_id: int) -> None:
    await agent.send(F.data(stream_id, bytes(65537)))


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (past_the_window, Code.FLOW_CONTROL),
        (credit_that_falls, Code.FLOW_CONTROL),
        (credit_that_overflows, Code.FLOW_CONTROL),
        (accepted_twice, Code.PROTOCOL_ERROR),
        (a_reset_and_then_another_stream, Code.PROTOCOL_ERROR),
        (data_that_is_too_long, Code.PROTOCOL_ERROR),
    ],
)
async def test_a_rule_broken_on_an_open_stream(
    town: Town, attack: Callable[[HostileAgent, int], Awaitable[None]], code: Code
) -> None:
    async with town.hostile() as agent, asyncio.timeout(2 * GRACE_S):
        await agent.greet()
        with town.client() as sock:
            stream_id = await agent.opened()
            await agent.send(F.accept(stream_id))
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the server need not hear all of it
                await attack(agent, stream_id)
            assert (await agent.refusal()).code is code
            # The client learns that its stream is cut: never a clean end.
            assert await eventually(lambda: _ended_in_reset(sock), GRACE_S, "the client's stream to end")


def _ended_in_reset(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    raise AssertionError("a clean end")


async def test_data_after_the_end_of_a_stream(town: Town) -> None:
    async with town.hostile() as agent, asyncio.timeout(2 * GRACE_S):
        await agent.greet()
        with town.client() as sock:
            stream_id = await agent.opened()
            await agent.send(F.accept(stream_id), F.data(stream_id, b"all"), F.fin(stream_id))
            loop = asyncio.get_running_loop()
            assert [await loop.sock_recv(sock, 100), await loop.sock_recv(sock, 100)] == [b"all", b""]
            await agent.send(F.data(stream_id, b"more"))
            assert (await agent.refusal()).code is Code.PROTOCOL_ERROR


async def test_a_box_that_takes_everything_and_acknowledges_nothing(town: Town) -> None:
    server = town.made.server
    before = server.rss_bytes()
    async with town.hostile() as agent, asyncio.timeout(2 * GRACE_S):
        await agent.greet()
        with town.client() as sock:
            stream_id = await agent.opened()
            await agent.send(F.accept(stream_id, credit=2**30 - 1), ack=0)
            taken, still = 0, 0
            while still < 50:  # half a second without a byte taken
                try:
                    taken += sock.send(bytes(256 * 1024))
                    still = 0
                except BlockingIOError:
                    still += 1
                    await asyncio.sleep(0.01)
            town.neighbour_goes_on()
        # What is kept for a resume, what waits in the stream's queue, and the kernel's share.
        assert taken < Limits().max_in_flight_bytes * 1.25 + 8 * MIB
    assert server.rss_bytes() - before < 120 * MIB


# Floods


async def _flood(agent: HostileAgent, packets: Callable[[int], list[pb.Frame]], count: int) -> Code | None:
    """Send packets and read the answers meanwhile; the code of the refusal, should there be one."""

    async def read() -> None:
        while True:
            await agent.frames()

    reader = asyncio.get_running_loop().create_task(read())
    try:
        for number in range(count):
            if reader.done():
                break
            await agent.send(*packets(number))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    finally:
        await asyncio.wait({reader}, timeout=1.0)
        reader.cancel()
        (ended,) = await asyncio.gather(reader, return_exceptions=True)
    return ended.code if isinstance(ended, SessionRefused) else None


def opens(number: int) -> list[pb.Frame]:
    return [F.open(2 * (number * 100 + place) + 1) for place in range(100)]


def opens_and_resets(number: int) -> list[pb.Frame]:
    ids = [2 * (number * 100 + place) + 1 for place in range(100)]
    return [frame for id_ in ids for frame in (F.open(id_), F.reset(id_))]


def pings(number: int) -> list[pb.Frame]:
    return [F.ping(number)] * 100


def farewells(number: int) -> list[pb.Frame]:
    return [F.go_away(text="x" * 500)] * 100  # as long as a message may be beside data


# A flood takes some seconds of both processors: three of the four are for `make e2e`.
slow = partial(pytest.param, marks=pytest.mark.e2e)


@pytest.mark.parametrize("frames", [slow(opens), opens_and_resets, slow(pings), slow(farewells)])
async def test_a_hundred_thousand_of_a_kind_cost_bounded_memory(
    town: Town, frames: Callable[[int], list[pb.Frame]]
) -> None:
    server = town.made.server
    attacker = town.another_hostile(frames.__name__.replace("_", "-"))
    before, descriptors, seen = server.rss_bytes(), server.descriptors(), len(server.log_text())
    async with attacker as agent, asyncio.timeout(3 * GRACE_S):
        await agent.greet()
        code = await _flood(agent, frames, 1000)
        assert code in (None, Code.LIMIT_EXCEEDED)
        await asyncio.to_thread(town.neighbour_goes_on)
    assert server.rss_bytes() - before < 80 * MIB
    assert len(server.log_text()) - seen < 8 * MIB, "a record of each open that was answered, and no more"
    await eventually(lambda: server.descriptors() <= descriptors, GRACE_S, "descriptors as before")


async def test_answers_that_nobody_reads_are_cut_off(town: Town) -> None:
    server = town.made.server
    attacker = town.another_hostile("deaf")
    before = server.rss_bytes()
    async with attacker as agent, asyncio.timeout(3 * GRACE_S):
        await agent.greet()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for number in range(3000):
                await agent.send(*opens(number), ack=0)
        assert (await agent.refusal()).code is Code.LIMIT_EXCEEDED
    assert server.rss_bytes() - before < 80 * MIB


async def test_sessions_without_end(town: Town) -> None:
    server = town.made.server
    before, descriptors = server.rss_bytes(), server.descriptors()
    for _ in range(100):
        async with town.hostile() as agent, asyncio.timeout(GRACE_S):
            await agent.greet()
    town.neighbour_goes_on()
    assert server.rss_bytes() - before < 40 * MIB
    await eventually(lambda: server.descriptors() <= descriptors + 4, GRACE_S, "descriptors as before")


# Hello


def _hello(**changes: object) -> bytes:
    hello = pb.Hello(protocol_min=1, protocol_max=1, instance_id=b"i" * 16, version="1")
    node = {name: value for name, value in changes.items() if hasattr(pb.Node(), name)}
    for name, value in changes.items():
        if name not in node:
            setattr(hello, name, value)
    hello.node.MergeFrom(pb.Node(**node))  # type: ignore[arg-type]
    return pb.Envelope(hello=hello).SerializeToString()


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\xff" * 1000,
        _hello(instance_id=b"short"),
        _hello(resume_session_id=b"x" * 1000),
        _hello(version="x" * 10_000),
        _hello(hostname="x" * 70_000),
        _hello(labels={f"k{number}": "v" for number in range(5000)}),
        _hello(services=[f"s{number}" for number in range(5000)]),
        _hello(hostname="\x1b]0;owned\x07" * 200),
        pb.Envelope(packet=pb.Packet(seq=1, frames=[F.open(1)])).SerializeToString(),
    ],
    ids=["nothing", "rubbish", "id", "resume", "version", "host", "labels", "services", "escapes", "packet first"],
)
async def test_a_hello_out_of_bounds_is_refused_in_words(town: Town, hello: bytes) -> None:
    async with town.hostile() as agent, asyncio.timeout(GRACE_S):
        with pytest.raises(SessionRefused) as caught:
            await agent.greet(hello)
    assert str(caught.value)
    assert caught.value.code in (Code.PROTOCOL_ERROR, Code.UNSUPPORTED_VERSION)
