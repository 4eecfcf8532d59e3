"""Whom the server takes a session from, when a session goes on, and what ends it: real carriers over mutual TLS.

The name must be theirs when the session is made, not when they connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.agents.refusals import FIRST_RETRY_S, MENDED_RETRY_S
from cloud_server.agents.sessions import AgentSessions
from cloud_server.trust.agents import JoinedAgents
from protos import tunnel_pb2
from tests.support.memory_carrier import MemoryCarrier, carrier_pair
from tests.support.session_server import BOX, RawBox, SessionServer, refuse, session_server
from tests.support.state import joined
from tests.support.state import opened as opened_state
from tests.support.waits import eventually
from tunnel.aio.sessions.stream import Stream
from tunnel.core.path.probes import PingBudget
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, SessionLost, SessionRefused
from tunnel.core.wire.handshake import decode_answer, encode_hello
from tunnel.core.wire.limits import MIB, SESSION_ID_BYTES, Limits, Timing
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("127.0.0.1", 7)
NO_HELLO = tunnel_pb2.Envelope(packet=tunnel_pb2.Packet(seq=1)).SerializeToString()
OTHER = "box-8"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32


class Waiting(MemoryCarrier):
    """A server's end that tells when its owner waits for Hello."""

    def __init__(self) -> None:
        super().__init__("server")
        self.asked = asyncio.Event()

    async def read(self) -> bytes | None:
        self.asked.set()
        return await super().read()


def pair() -> tuple[MemoryCarrier, Waiting]:
    box, server = carrier_pair()[0], Waiting()
    box.other, server.other = server, box
    return box, server


def hello() -> bytes:
    return encode_hello(
        version="1",
        instance_id=b"i" * SESSION_ID_BYTES,
        node=tunnel_pb2.Node(),
        limits=Limits(),
        resume_session_id=b"",
        last_received=0,
    )


@pytest.mark.parametrize("taken", ["revoked", "rejoined"])
async def test_a_name_lost_before_hello_came_gets_no_session(tmp_path: Path, taken: str) -> None:
    async with opened_state(tmp_path) as store:
        agents = JoinedAgents(store, pins_unknown=False)
        directory = MemoryDirectory()
        acceptor = AgentSessions(
            Agents(agents, directory),
            directory,
            agents,
            version="1",
            limits=Limits(),
            timing=Timing(),
            process_budget=Budget(total_bytes=64 * MIB),
            ping_budget=PingBudget(pings_per_s=150),
            acceptor=lambda _name: refuse,
            turned_down=lambda _name, _event: None,
        )
        await joined(store, BOX, KEY)
        box, server = pair()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(acceptor.on_carrier(server, f"spiffe://longline/agent/{BOX}", KEY))
            await eventually(server.asked.is_set)
            if taken == "revoked":
                await agents.revoke(BOX)
            else:
                await joined(store, BOX, OTHER_KEY)
            await box.write(hello())
            answer = await box.read()
            assert answer is not None
            with pytest.raises(SessionRefused) as caught:
                decode_answer(answer)
        assert caught.value.code is Code.IDENTITY_REJECTED
        assert directory.session(BOX) is None


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SessionServer]:
    async with session_server(tmp_path) as made:
        yield made


async def opened(server: SessionServer, name: str = BOX, text: bytes = b"ping") -> Stream:
    """A stream that works."""
    stream = await server.session(name).open(TARGET, deadline_s=5)
    await stream.write(text)
    assert await stream.read() == text
    return stream


async def test_a_session_goes_on_over_a_new_carrier(server: SessionServer) -> None:
    async with RawBox(server) as box:
        first = await box.connect()
        stream = await opened(server)
        session = server.session()
        box.carriers[-1].close()
        await eventually(lambda: not session.attached)
        again = await box.connect()
        assert (first.resumed, again.resumed) == (False, True)
        assert again.session_id == first.session_id
        assert server.session() is session
        await stream.write(b"on")
        assert await stream.read() == b"on"


async def test_a_new_carrier_takes_the_place_of_one_that_seems_well(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        stream = await opened(server)
        assert (await box.connect()).resumed
        await stream.write(b"on")
        assert await stream.read() == b"on"
        # The late end of the first carrier is no news of the agent.
        await eventually(lambda: len(server.cloud.server._carriers) == 1)
        assert server.registry.agents()[0].connected


async def test_a_box_that_was_started_anew_gets_a_new_session_and_the_old_streams_are_lost(
    server: SessionServer,
) -> None:
    async with RawBox(server, instance=b"1") as before, RawBox(server, instance=b"2") as after:
        await before.connect()
        stream = await opened(server)
        assert not (await after.connect()).resumed
        with pytest.raises(SessionLost, match="started anew"):
            await stream.read()
        await opened(server)
        assert server.registry.agents()[0].connected


async def test_who_cannot_say_where_it_stood_gets_a_new_session(server: SessionServer) -> None:
    async with RawBox(server) as box:
        first = await box.connect()
        stream = await opened(server)
        envelope = tunnel_pb2.Envelope.FromString(box.hello())
        envelope.hello.last_received = 1_000_000
        again = await box.connect(envelope.SerializeToString())
        assert not again.resumed
        assert again.session_id != first.session_id
        with pytest.raises(SessionLost, match="cannot go on"):
            await stream.read()


async def test_of_two_copies_of_one_box_the_newer_stays(server: SessionServer) -> None:
    async with RawBox(server, instance=b"1") as one, RawBox(server, instance=b"2") as two:
        old = await one.connect()
        await two.connect()
        stream = await opened(server)
        # Also when its own session has run out meanwhile; each time it is to wait for longer.
        for resume, retry_s in ((old.session_id, FIRST_RETRY_S), (b"", 2 * FIRST_RETRY_S)):
            with pytest.raises(SessionRefused, match="another process uses the identity of box-7") as refused:
                await one.greet(one.hello(resume=resume))
            assert refused.value.code is Code.REPLACED
            assert refused.value.retry_after_s == retry_s
        await stream.write(b"on")
        assert await stream.read() == b"on"


async def test_the_older_copy_may_come_back_when_the_newer_is_away(server: SessionServer) -> None:
    async with RawBox(server, instance=b"1") as one, RawBox(server, instance=b"2") as two:
        await one.connect()
        await two.connect()
        two.carriers[-1].close()
        await eventually(lambda: not server.connected())
        assert not (await one.connect(one.hello(resume=b""))).resumed
        await opened(server)


async def test_a_process_may_ask_for_a_new_session_in_place_of_its_own(server: SessionServer) -> None:
    async with RawBox(server) as box:
        for _ in range(3):
            assert not (await box.connect(box.hello(resume=b""))).resumed
        await opened(server)


async def test_a_draining_server_takes_no_new_box_and_says_when_to_come_back(server: SessionServer) -> None:
    server.sessions.drain(SessionRefused("the server is stopping", Code.SHUTTING_DOWN, 7.5))
    async with RawBox(server) as box:
        with pytest.raises(SessionRefused, match="the server is stopping") as refused:
            await box.greet()
    assert refused.value.code is Code.SHUTTING_DOWN
    assert refused.value.retry_after_s == 7.5
    assert server.directory.session(BOX) is None


async def test_a_session_that_lost_its_link_may_end_its_streams_at_a_draining_server(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        stream = await opened(server)
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        server.sessions.drain(SessionRefused("the server is stopping", Code.SHUTTING_DOWN, 1.0))
        server.session().go_away(Code.SHUTTING_DOWN, "the server is stopping", 1.0)
        assert (await box.connect()).resumed
        await stream.write(b"the rest")
        assert await stream.read() == b"the rest"
        assert box.went_away == [(Code.SHUTTING_DOWN, 1.0)]


async def test_a_revocation_ends_the_live_session_and_lets_nobody_back_in(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        stream = await opened(server)
        await server.revoke(BOX)
        with pytest.raises(SessionLost, match="was revoked"):
            await stream.read()
        assert server.directory.session(BOX) is None
        assert server.registry.agent(BOX) is None
        with pytest.raises(SessionRefused, match="was revoked") as refused:
            await box.greet()
        assert (refused.value.code, refused.value.retry_after_s) == (Code.IDENTITY_REJECTED, MENDED_RETRY_S)


@pytest.mark.parametrize("spoken", [0, 2, 1000])
async def test_a_box_of_another_protocol_is_told_which_is_spoken(server: SessionServer, spoken: int) -> None:
    async with RawBox(server) as box:
        with pytest.raises(SessionRefused, match=f"protocol {spoken}-{spoken} is not spoken here, 1-1 is") as refused:
            await box.greet(box.hello(protocol=spoken))
    assert refused.value.code is Code.UNSUPPORTED_VERSION
    assert server.directory.session(BOX) is None


async def test_a_captured_hello_of_another_box_gives_nothing_of_it(server: SessionServer) -> None:
    thief_card = server.cloud.authority.issue(uris=["spiffe://longline/agent/box-8"])
    async with RawBox(server) as box, RawBox(server, issued=thief_card) as thief:
        mine = await box.connect()
        stream = await opened(server)
        stolen = await thief.connect(box.hello())
        assert not stolen.resumed
        assert stolen.session_id != mine.session_id
        assert server.session("box-8") is not server.session()
        await stream.write(b"still mine")
        assert await stream.read() == b"still mine"
        assert {view.name: view.connected for view in server.registry.agents()} == {BOX: True, "box-8": True}


@pytest.mark.parametrize("said", [b"\xff\xff", b"", NO_HELLO])
async def test_what_is_no_hello_is_refused_in_words(server: SessionServer, said: bytes) -> None:
    async with RawBox(server) as box:
        carrier = await box.dial()
        await carrier.write(said)
        answer = await carrier.read()
        assert answer is not None
        with pytest.raises(SessionRefused) as refused:
            decode_answer(answer)
    assert refused.value.code is Code.PROTOCOL_ERROR
    assert server.directory.session(BOX) is None


async def test_a_box_that_leaves_before_its_hello_leaves_nothing(server: SessionServer) -> None:
    async with RawBox(server) as box:
        carrier = await box.dial()
        await eventually(lambda: len(server.cloud.server._carriers) == 1)
        carrier.close()
        await eventually(lambda: not server.cloud.server._carriers)
    assert server.registry.agents() == []


async def test_where_memory_is_short_those_without_a_link_go_the_largest_first(server: SessionServer) -> None:
    window_bytes = Limits().initial_window_bytes
    memory = server.sessions.memory
    card = server.cloud.authority.issue(uris=[f"spiffe://longline/agent/{OTHER}"])
    async with RawBox(server) as small, RawBox(server, issued=card) as large:
        for box, name, count in ((small, BOX, 1), (large, OTHER, 4)):
            await box.connect()
            for _ in range(count):
                await opened(server, name)
            box.carriers[-1].close()
        lost = server.session(OTHER)
        await eventually(lambda: not server.session(BOX).attached and not lost.attached)
        assert not lost.closed.done(), "there is room"
        memory.total_bytes = 5 * window_bytes
        server.sessions._make_room()
        await eventually(lambda: memory.used_bytes == window_bytes)
        assert "memory was short" in str(lost.closed.result())
        assert not server.session(BOX).closed.done()
        assert (await small.connect()).resumed
        assert not server.sessions._suspended
