"""The agent's side of a session's life, against real servers over mutual TLS: nothing but waits and dice is faked."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edge_agent.link import link as one_link
from edge_agent.link.addresses import Addresses
from edge_agent.link.greeting import Box
from edge_agent.link.links import MAX_DRAINING, Links
from edge_agent.link.pauses import MAX_ADVISED_S
from protos import tunnel_pb2
from tests.support.carriers import DIRECT, Cloud, cloud
from tests.support.session_server import BOX, SessionServer, echo, session_server
from tests.support.waits import eventually
from tunnel.aio.carriers.carrier import Carrier, CarrierLost
from tunnel.aio.carriers.carrier_server import OnCarrier
from tunnel.aio.process.clock import MONOTONIC
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core.session import Session
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost, SessionRefused, StreamReset, TunnelError
from tunnel.core.wire.handshake import decode_hello, encode_refusal, encode_welcome
from tunnel.core.wire.limits import MIB, SESSION_ID_BYTES, Limits, Timing
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("127.0.0.1", 7)


class Agent:
    """A link and the task that keeps it."""

    def __init__(self, link: Links, ups: list[float]) -> None:
        self.link = link
        self.ups = ups
        """When a link came up."""
        self.pauses: list[float] = []
        """How long it wanted to wait before each new attempt."""
        self.running: asyncio.Task[None] | None = None

    @property
    def run(self) -> asyncio.Task[None]:
        assert self.running is not None
        return self.running


class Ups:
    """Writes down when a link came up."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def up(self, *, resumed: bool) -> None:
        self.at.append(asyncio.get_running_loop().time())

    def failed(self, error: CarrierLost | TunnelError) -> None: ...

    def lost(self, error: CarrierLost | None) -> None: ...


@contextlib.asynccontextmanager
async def agent(
    addresses: Sequence[str], tls_of: Cloud, *, describe: Callable[[], tunnel_pb2.Node] = tunnel_pb2.Node,
    known: Addresses | None = None,
) -> AsyncIterator[Agent]:  # fmt: skip
    """A running link; what it waits between attempts is written down, and cut to nothing."""
    loop = asyncio.get_running_loop()
    ups = Ups()
    known = known or Addresses(Path("/nowhere"), lambda _fault: None)
    box = Box(
        tls=tls_of.tls(), addresses=known, acceptor=echo, describe=describe, version="1", limits=Limits(),
        memory=Budget(total_bytes=64 * MIB), instance_id=os.urandom(SESSION_ID_BYTES),
    )  # fmt: skip
    links = Links(addresses, box, DIRECT, ups)
    made = Agent(links, ups.at)
    (link,) = links._links
    pause = link._pause

    async def noted(delay_s: float) -> None:
        made.pauses.append(delay_s)
        await pause(min(delay_s, 0.01))

    link._pause = noted  # type: ignore[method-assign]
    made.running = loop.create_task(links.run())
    try:
        yield made
    finally:
        made.running.cancel()
        await asyncio.wait([made.running])
        await links.aclose()
        await known.aclose()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SessionServer]:
    async with session_server(tmp_path / "one") as made:
        yield made


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SessionServer]:
    async with session_server(tmp_path / "two") as made:
        yield made


@pytest.fixture
def dice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest wait of each range."""
    monkeypatch.setattr("random.random", lambda: 1.0)


async def opened(server: SessionServer) -> Stream:
    stream = await server.session().open(TARGET, deadline_s=5)
    await works(stream)
    return stream


async def works(stream: Stream) -> None:
    await stream.write(b"ping")
    assert await stream.read() == b"ping"


def has_come_up(box: Agent, times: int) -> bool:
    return len(box.ups) == times


def nobody() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def welcome(**changes: object) -> bytes:
    values = {
        "protocol": 1, "version": "1", "session_id": b"s" * SESSION_ID_BYTES, "resumed": False, "last_received": 0,
        "limits": Limits(), "timing": Timing(),
    }  # fmt: skip
    return encode_welcome(**{**values, **changes})  # type: ignore[arg-type]


def answering(*answers: bytes) -> OnCarrier:
    """An owner of carriers that answers Hello and leaves; the last answer is for all that follow."""
    left = list(answers)

    async def answer(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        if await carrier.read() is not None:
            await carrier.write(left.pop(0) if len(left) > 1 else left[0])
            await carrier.finish()

    return answer


# Up, down, and up again


async def test_a_lost_link_is_dialled_again_at_once_and_its_streams_go_on(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        await eventually(server.connected)
        stream = await opened(server)
        session = server.session()
        for turn in range(3):
            server.cut()
            await eventually(functools.partial(has_come_up, box, turn + 2))
            await works(stream)
        assert server.session() is session
    assert len(box.ups) == 4
    assert len(box.pauses) == 3
    assert max(box.pauses) <= 0.2


async def test_a_new_certificate_moves_the_session_to_a_new_carrier(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        box.link.reconnect()  # nothing is up yet: no matter
        await eventually(server.connected)
        stream = await opened(server)
        box.link.reconnect()
        await eventually(lambda: len(box.ups) > 1)
        await works(stream)


async def test_a_server_that_was_restarted_gets_a_new_session_and_the_old_streams_are_reset(tmp_path: Path) -> None:
    ended: list[object] = []
    async with session_server(tmp_path) as first:
        address = first.address
        async with agent([address], first.cloud) as box:
            await eventually(first.connected)
            await opened(first)
            session = box.link.session
            assert session is not None
            (stream,) = session._streams.values()
            await first.cloud.server.stop(0)
            async with session_server(tmp_path, listen=address) as second:
                await eventually(second.connected)
                await opened(second)
                ended.append(stream.error)
                assert box.link.session is not session
    assert isinstance(ended[0], SessionLost)


async def test_nothing_ends_it(server: SessionServer) -> None:
    """Whatever the server says, and whatever fails on the box, the link is tried again."""
    refusal = SessionRefused("not today", Code.UNSUPPORTED_VERSION)
    answers = [
        b"", b"\xff\xff", encode_refusal(refusal), welcome(protocol=9), welcome(session_id=b"short"),
        welcome(resumed=True), welcome(timing=Timing(suspect_after_s=0)), tunnel_pb2.Envelope().SerializeToString(),
    ]  # fmt: skip
    async with cloud(answering(*answers)) as liar:
        with capture_logs() as logs:
            async with agent([nobody(), "[::1", liar.address], liar) as box:
                await eventually(lambda: len(box.pauses) > 8 * len(answers), within_s=20)
                assert not box.run.done()
        reasons = {log["reason"] for log in logs if log["event"].startswith("cannot connect")}
        assert any("not today" in reason for reason in reasons)
        assert any("connection refused" in reason for reason in reasons)
        assert not any("Traceback" in reason or reason == "TimeoutError" for reason in reasons)


async def test_the_same_reason_is_told_once(tmp_path: Path) -> None:
    address = nobody()
    async with cloud(answering(b"")) as unused:
        with capture_logs() as logs:
            async with agent([address], unused) as box:
                await eventually(lambda: len(box.pauses) > 5)
    warnings = [log for log in logs if log["log_level"] == "warning"]
    assert [(log["server"], log["reason"]) for log in warnings] == [
        (address, f"{address}: connection refused: nothing listens there")
    ]


# How soon


@pytest.mark.usefixtures("dice")
async def test_tries_grow_apart_while_nobody_listens() -> None:
    async with cloud(answering(b"")) as unused, agent([nobody()], unused) as box:
        await eventually(lambda: len(box.pauses) > 6)
    assert box.pauses[:6] == [0.2, 0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.usefixtures("dice")
async def test_a_server_that_accepts_and_cuts_at_once_is_not_stormed_and_not_stayed_with(
    server: SessionServer,
) -> None:
    async with cloud(answering(welcome())) as cutting:
        async with agent([cutting.address], cutting) as box:
            await eventually(lambda: len(box.pauses) > 6)
            assert box.pauses[:6] == [0.2, 0.5, 1.0, 2.0, 3.0, 3.0]
        async with agent([cutting.address, server.address], cutting) as box:
            await eventually(server.connected)
            assert len(box.pauses) == 2


@pytest.mark.usefixtures("dice")
@pytest.mark.parametrize(("advised_s", "waits_s"), [(7.0, 10.5), (4_000_000.0, 1.5 * MAX_ADVISED_S)])
async def test_the_wait_that_a_server_advises_is_kept_up_to_a_bound(advised_s: float, waits_s: float) -> None:
    refusal = encode_refusal(SessionRefused("come back later", Code.REPLACED, advised_s))
    async with cloud(answering(refusal)) as refusing, agent([refusing.address], refusing) as box:
        await eventually(lambda: box.pauses)
    assert box.pauses[0] == waits_s


async def test_advice_is_for_one_attempt(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        await eventually(server.connected)
        server.session().go_away(Code.SHUTTING_DOWN, "moving", 6.0)
        await eventually(lambda: len(box.ups) == 2)
        await opened(server)
        server.cut()
        await eventually(lambda: len(box.ups) == 3)
    assert 6.0 <= box.pauses[0] <= 9.0
    assert box.pauses[1] <= 0.2


# Several servers


async def test_the_next_server_takes_over_after_two_failures(server: SessionServer) -> None:
    async with agent([nobody(), server.address], server.cloud) as box:
        await eventually(server.connected)
        assert len(box.pauses) == 2


async def test_without_streams_the_next_server_is_tried_and_with_streams_only_later(
    server: SessionServer, other: SessionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_link, "STICK_S", 1.0)
    async with agent([server.address, other.address], server.cloud) as box:
        await eventually(server.connected)
        await opened(server)
        session = box.link.session
        assert session is not None
        (stream,) = session._streams.values()
        lost_s = asyncio.get_running_loop().time()
        await server.cloud.server.stop(0)
        await eventually(other.connected)
        assert asyncio.get_running_loop().time() - lost_s > 0.9
        await eventually(lambda: stream.error)  # the server knows of the new session a little sooner than the box
        assert isinstance(stream.error, SessionLost)
    tries = len(box.pauses)
    assert tries > 2 + 2


async def test_a_server_that_goes_away_is_left_for_the_next_and_its_streams_may_end(
    server: SessionServer, other: SessionServer
) -> None:
    async with agent([server.address, other.address], server.cloud) as box:
        await eventually(server.connected)
        stream = await opened(server)
        session = server.session()
        session.go_away(Code.SHUTTING_DOWN, "the server is stopping", 0.1)
        await eventually(other.connected)
        session.go_away(Code.SHUTTING_DOWN, "the server is stopping, as it said", 0.1)
        await works(stream)
        await works(await opened(other))
        with pytest.raises(OpenRefused) as refused:
            await opened(server)
        assert refused.value.code is Code.SHUTTING_DOWN
        assert not session.closed.done()
        await stream.aclose()
        assert isinstance(await asyncio.shield(session.closed), SessionLost)
        await eventually(lambda: not box.link._draining)
        assert other.connected()
        # The second word of the first was not taken for one of the other.
        assert len(box.ups) == 2


async def test_a_server_that_always_sends_away_fills_nothing() -> None:
    sessions: list[TunnelSession] = []

    async def sends_away(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        await carrier.read()
        core = Session(session_id=os.urandom(SESSION_ID_BYTES), dialler=False, now=MONOTONIC())
        session = TunnelSession(core, echo, "box", on_going_away=lambda _session, _event: None, clock=MONOTONIC)
        sessions.append(session)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(session.run_carrier(carrier, 0, welcome(session_id=core.session_id)))
            await session.open(TARGET, deadline_s=5)  # it would drain for ever
            session.go_away(Code.SHUTTING_DOWN, "away with you")

    async with cloud(sends_away) as hostile:
        async with agent([hostile.address], hostile) as box:
            await eventually(lambda: len(sessions) > MAX_DRAINING + 3)
            await eventually(lambda: sum(session.attached for session in sessions) <= MAX_DRAINING + 1)
            assert len(box.link._draining) <= MAX_DRAINING
            assert not box.run.done()
        for session in sessions:
            await session.aclose()


# Ends


async def test_a_refused_identity_ends_its_streams_at_once(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        await eventually(server.connected)
        await opened(server)
        session = box.link.session
        assert session is not None
        (stream,) = session._streams.values()
        await server.revoke(BOX)
        await eventually(lambda: stream.error is not None)
        assert "was revoked" in str(stream.error)
        assert not box.run.done()


async def test_a_drain_ends_in_order_when_the_streams_have(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        await eventually(server.connected)
        stream, session = await opened(server), server.session()
        async with asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(box.link.drain(20, "agent box-7 is stopping"))
            await eventually(lambda: session.going_away)
            await works(stream)
            assert not drain.done()
            await stream.aclose()
        await box.link.finish()
        await box.run
        async with asyncio.timeout(5):
            assert str(await asyncio.shield(session.closed)) == f"{BOX} has shut down"


async def test_a_link_lost_while_draining_is_dialled_again_for_its_streams(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        await eventually(server.connected)
        stream, session = await opened(server), server.session()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(box.link.drain(20, "agent box-7 is stopping"))
            await eventually(lambda: session.going_away)
            box.link.reconnect()  # which loses the link
            await eventually(lambda: len(box.ups) == 2)
            await works(stream)
            await stream.aclose()
        assert len(box.ups) == 2


async def test_what_outlives_the_drain_is_reset_at_the_server_too(server: SessionServer) -> None:
    async with agent([server.address], server.cloud) as box:
        await eventually(server.connected)
        stream = await opened(server)
        await box.link.drain(0.05, "agent box-7 is stopping")
        await box.link.finish()
        with pytest.raises(StreamReset) as reset:
            await stream.read()
        assert reset.value.code is Code.SHUTTING_DOWN


@pytest.mark.parametrize("moment", ["dial", "greeting", "pause"])
async def test_it_stops_at_once_whatever_it_waits_for(moment: str) -> None:
    greeted = asyncio.Event()

    async def silent(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        decode_hello(await carrier.read() or b"")
        greeted.set()
        with contextlib.suppress(CarrierLost):
            await carrier.read()

    with contextlib.ExitStack() as held:
        mute = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        mute.setblocking(False)
        async with cloud(silent) as unhelpful:
            dialled = f"127.0.0.1:{mute.getsockname()[1]}"
            address = {"dial": dialled, "greeting": unhelpful.address, "pause": nobody()}[moment]
            async with agent([address], unhelpful) as box:
                match moment:
                    case "dial":
                        held.enter_context((await asyncio.get_running_loop().sock_accept(mute))[0])
                    case "greeting":
                        await greeted.wait()
                    case _:
                        await eventually(lambda: box.pauses)
                async with asyncio.timeout(1):
                    await box.link.drain(30, "agent box-7 is stopping")
                    await box.link.finish()
                    box.run.cancel()
                    await asyncio.wait([box.run])
