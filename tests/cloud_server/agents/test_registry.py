"""The agents of a server: who is there, who hears of it, and opening streams while links come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud_server.agents import registry as registry_module
from cloud_server.agents.registry import MAX_LAG, Change, Registry, SubscriberTooSlow
from cloud_server.trust.agents import IdentityRejected
from tests.support.session_server import BOX, RawBox, SessionServer, session_server
from tests.support.state import joined
from tests.support.waits import eventually
from tunnel.aio.identity.validity import Validity
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost
from tunnel.core.wire.limits import Timing
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("127.0.0.1", 7)
JOINED = datetime(2025, 1, 2, tzinfo=UTC)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SessionServer]:
    async with session_server(tmp_path) as made:
        yield made


async def opened(server: SessionServer, deadline_s: float = 5.0, early_data: bytes = b"") -> Stream:
    return await server.registry.open(
        BOX, TARGET, principal="ann", frontend="forward", deadline_s=deadline_s, early_data=early_data
    )


async def refused(server: SessionServer, deadline_s: float = 5.0, early_data: bytes = b"") -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await opened(server, deadline_s, early_data)
    return caught.value


def now() -> float:
    return asyncio.get_running_loop().time()


class Known:
    """Agents that joined."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def names(self) -> tuple[str, ...]:
        return self._names

    def validity(self, name: str) -> Validity | None:
        return None

    def joined(self, name: str) -> datetime | None:
        return JOINED if name in self._names else None


# Who is there


async def test_an_agent_that_joined_and_one_that_is_connected(server: SessionServer) -> None:
    await joined(server.store, "box-9", b"k" * 32)
    async with RawBox(server) as box:
        await box.connect()
        here, away = server.registry.agents()
        assert (here.name, here.connected, here.version) == (BOX, True, "1")
        assert here.address.startswith("127.0.0.1:")
        assert (away.name, away.connected, away.since, away.node) == ("box-9", False, None, None)
        assert away.joined is not None
        box.carriers[-1].close()
        await eventually(lambda: not server.registry.agents()[0].connected)
        gone = server.registry.agents()[0]
        assert gone.since == gone.last_seen
        assert gone.address == here.address
        assert server.registry.session(BOX) is not None, "it waits for the next link"


async def test_the_late_end_of_an_old_link_harms_neither_the_newer_link_nor_the_newer_session(
    server: SessionServer,
) -> None:
    """Told by hand, in the order that a slow old link would have it."""
    registry = server.registry
    async with RawBox(server, instance=b"1") as one, RawBox(server, instance=b"2") as two:
        await one.connect()
        old = server.session()
        await one.connect()
        assert server.session() is old
        registry.lost(BOX, old)
        assert registry.agents()[0].connected, "the session has a newer link"
        await two.connect()
        registry.lost(BOX, old)
        assert registry.agents()[0].connected, "the agent has a newer session"
        assert server.session() is not old
        await opened(server)
        registry.lost("nobody", old)


async def test_an_agent_whose_name_is_taken_away_is_gone_at_once(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        session = server.session()
        server.registry.removed(BOX, IdentityRejected(f"{BOX} was revoked"))
        assert str(await asyncio.shield(session.closed)) == f"{BOX} was revoked"
        assert server.registry.session(BOX) is None
        assert server.registry.sessions() == []
        await eventually(lambda: not server.cloud.server._carriers)
    server.registry.removed("nobody", IdentityRejected("it was revoked"))


async def test_an_agent_whose_name_went_to_another_key_loses_its_session(server: SessionServer) -> None:
    server.registry.rejoined(BOX, IdentityRejected("nobody is there yet"))
    async with RawBox(server) as box:
        await box.connect()
        session = server.session()
        server.registry.rejoined(BOX, IdentityRejected("the name went to a new key"))
        assert session.closed.done()
        await eventually(lambda: not server.registry.agents()[0].connected)


async def test_an_agent_that_was_here_before_a_restart_is_waited_for(server: SessionServer) -> None:
    async with RawBox(server) as before:
        await before.connect()
    server.registry._entries.clear()  # as after a restart: joined, and nothing else is known
    async with asyncio.TaskGroup() as tasks, RawBox(server) as box:
        waiting = [tasks.create_task(opened(server)) for _ in range(2)]
        await eventually(lambda: BOX in server.registry._arrivals)
        await box.connect()
        for stream in waiting:
            assert str((await stream).target) == str(TARGET)
    assert BOX not in server.registry._arrivals


async def test_until_the_deadline_and_not_for_ever_after_the_start(
    server: SessionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await joined(server.store, BOX, b"k" * 32)
    monkeypatch.setattr(registry_module, "LINK_WAIT_S", 0.1)
    start = now()
    assert (await refused(server, deadline_s=0.5)).code is Code.AGENT_AWAY
    assert now() - start >= 0.49
    monkeypatch.setattr(registry_module, "LINK_WAIT_S", 60.0)
    monkeypatch.setattr(registry_module, "JUST_STARTED_S", 0.0)
    assert (await refused(server)).code is Code.AGENT_AWAY
    assert now() - start < 30.0


# Who hears of it


async def test_changes_come_in_order_to_everybody(server: SessionServer) -> None:
    heard: list[list[tuple[Change, str, bool]]] = [[], []]

    async def listen(into: list[tuple[Change, str, bool]]) -> None:
        async for change, view in server.registry.subscribe():
            into.append((change, view.name, view.connected))
            if change is Change.REMOVED:
                return

    async with asyncio.TaskGroup() as tasks, RawBox(server) as box:
        for into in heard:
            tasks.create_task(listen(into))
        await eventually(lambda: len(server.registry._subscribers) == 2)
        await box.connect()
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        await box.connect()
        server.registry.removed(BOX, IdentityRejected("revoked"))
    expected = [(Change.CONNECTED, True), (Change.AWAY, False), (Change.CONNECTED, True), (Change.REMOVED, False)]
    assert heard == [[(change, BOX, connected) for change, connected in expected]] * 2


async def test_a_subscriber_that_leaves_is_forgotten() -> None:
    registry = Registry(Known("box-1"))

    async def listen() -> None:
        async for _ in registry.subscribe():
            pass

    task = asyncio.get_running_loop().create_task(listen())
    await eventually(lambda: registry._subscribers)
    task.cancel()
    await asyncio.wait([task])
    assert not registry._subscribers


async def test_a_subscriber_that_is_too_slow_is_told_so_and_holds_up_nobody() -> None:
    registry = Registry(Known("box-1"))
    heard: dict[str, int] = {"slow": 0, "quick": 0}
    go_on = asyncio.Event()

    async def listen(who: str) -> None:
        async for _ in registry.subscribe():
            heard[who] += 1
            if who == "slow":
                await go_on.wait()

    loop = asyncio.get_running_loop()
    slow, quick = loop.create_task(listen("slow")), loop.create_task(listen("quick"))
    await eventually(lambda: len(registry._subscribers) == 2)
    for _ in range(2 * MAX_LAG):
        registry.removed("box-1", IdentityRejected("revoked"))
        await asyncio.sleep(0)
    await eventually(lambda: heard["quick"] == 2 * MAX_LAG)
    assert heard["slow"] == 1
    assert max(queue.qsize() for queue in registry._subscribers) == MAX_LAG + 1
    go_on.set()
    with pytest.raises(SubscriberTooSlow):
        await slow
    assert heard["slow"] == 1 + MAX_LAG
    assert len(registry._subscribers) == 1, "it is to subscribe anew"
    quick.cancel()
    await asyncio.wait([quick])


# Opening


async def test_a_stream_says_who_asked_and_by_which_way(server: SessionServer) -> None:
    asked: list[Principal] = []

    async def note(incoming: IncomingStream) -> None:
        asked.append(incoming.principal)
        incoming.refuse(Code.REFUSED, "127.0.0.1:7: connection refused")

    async with RawBox(server, acceptor=note) as box:
        await box.connect()
        refusal = await refused(server)
    assert asked == [Principal(kind=PrincipalKind.STATIC_FORWARD, name="ann")]
    assert (refusal.code, str(refusal)) == (Code.REFUSED, f"agent {BOX}: 127.0.0.1:7: connection refused")


async def test_an_agent_that_nobody_knows_and_one_that_is_away_are_answered_at_once(
    server: SessionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "JUST_STARTED_S", 0.0)
    start = now()
    unknown = await refused(server)
    await joined(server.store, BOX, b"k" * 32)
    never_seen = await refused(server)
    assert now() - start < 1
    assert (unknown.code, str(unknown)) == (Code.UNKNOWN_AGENT, f"agent {BOX} is not known here")
    assert (never_seen.code, str(never_seen)) == (Code.AGENT_AWAY, f"agent {BOX} is away")


async def test_while_the_link_is_down_it_waits_and_goes_through_when_the_link_is_back(server: SessionServer) -> None:
    async with RawBox(server) as box, asyncio.TaskGroup() as tasks:
        await box.connect()
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        opening = tasks.create_task(opened(server))
        await asyncio.sleep(0)  # it has begun
        await box.connect()
        stream = await opening
        await stream.write(b"x")
        assert await stream.read() == b"x"


@pytest.mark.parametrize(("deadline_s", "wait_s"), [(0.3, 3.0), (5.0, 0.3)])
async def test_while_the_link_stays_down_it_is_answered_at_the_deadline_or_before(
    server: SessionServer, monkeypatch: pytest.MonkeyPatch, deadline_s: float, wait_s: float
) -> None:
    monkeypatch.setattr(registry_module, "LINK_WAIT_S", wait_s)
    async with RawBox(server) as box:
        await box.connect()
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        start = now()
        refusal = await refused(server, deadline_s)
        assert 0.25 < now() - start < 2
        assert refusal.code is Code.AGENT_AWAY
        assert str(refusal).startswith(f"agent {BOX} is away")
        assert server.session().core.stream_count == 0


async def test_an_agent_that_never_answers_is_no_reason_to_wait_longer(server: SessionServer) -> None:
    async def never(_incoming: IncomingStream) -> None:
        await asyncio.get_running_loop().create_future()

    async with RawBox(server, acceptor=never) as box:
        await box.connect()
        refusal = await refused(server, 0.2)
    assert refusal.code is Code.DEADLINE


async def test_an_open_without_an_answer_goes_to_the_process_that_took_over(server: SessionServer) -> None:
    async def never(_incoming: IncomingStream) -> None:
        await asyncio.get_running_loop().create_future()

    async with RawBox(server, instance=b"1", acceptor=never) as one, RawBox(server, instance=b"2") as two:
        await one.connect()
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(opened(server))
            await eventually(lambda: one.session and one.session.core.stream_count)
            await two.connect()
        stream = opening.result()
        await stream.write(b"x")
        assert await stream.read() == b"x"


@pytest.mark.parametrize("early_data", [b"", b"early"])
async def test_an_open_that_waits_for_the_link_goes_to_the_process_that_took_over(
    server: SessionServer, early_data: bytes
) -> None:
    async with RawBox(server, instance=b"1") as one, RawBox(server, instance=b"2") as two:
        await one.connect()
        one.carriers[-1].close()
        await eventually(lambda: not server.connected())
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(opened(server, early_data=early_data))
            await asyncio.sleep(0)  # it has begun
            await two.connect()
        stream = opening.result()
        await stream.write(b"x")
        received = b""
        while len(received) < len(early_data) + 1:
            received += await stream.read()
        assert received == early_data + b"x"


async def test_bytes_that_went_along_with_an_open_go_to_one_process_only(server: SessionServer) -> None:
    async def never(_incoming: IncomingStream) -> None:
        await asyncio.get_running_loop().create_future()

    async with RawBox(server, instance=b"1", acceptor=never) as one, RawBox(server, instance=b"2") as two:
        await one.connect()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(refused(server, early_data=b"x"))
            await eventually(lambda: one.session and one.session.core.stream_count)
            await two.connect()
        assert asking.result().code is Code.SESSION_LOST


@pytest.mark.parametrize("how", ["revoked", "gone"])
async def test_an_open_whose_agent_is_lost_meanwhile_is_answered_at_once(tmp_path: Path, how: str) -> None:
    timing = Timing(resume_window_s=0.1 if how == "gone" else 120.0)
    async with session_server(tmp_path, timing=timing) as server, RawBox(server) as box:
        await box.connect()
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        start = now()
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(refused(server, 30))
            if how == "revoked":
                await server.revoke(BOX)
        assert now() - start < 3
        assert opening.result().code is (Code.UNKNOWN_AGENT if how == "revoked" else Code.AGENT_AWAY)


async def test_a_cancelled_open_leaves_nothing(server: SessionServer) -> None:
    async def never(_incoming: IncomingStream) -> None:
        await asyncio.get_running_loop().create_future()

    async with RawBox(server, acceptor=never) as box:
        await box.connect()
        opening = asyncio.get_running_loop().create_task(opened(server))
        await eventually(lambda: server.session().core.stream_count)
        opening.cancel()
        await asyncio.wait([opening])
        assert server.session().core.stream_count == 0
        assert box.session is not None
        await box.session.drained()


async def test_an_open_that_is_cancelled_while_it_waits_for_the_link_leaves_nothing(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        opening = asyncio.get_running_loop().create_task(opened(server))
        await asyncio.sleep(0)  # it has begun
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        assert server.session().core.stream_count == 0


async def test_an_agent_that_stops_refuses_in_its_own_words(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        assert box.session is not None
        box.session.go_away(Code.SHUTTING_DOWN, f"agent {BOX} is stopping")
        await eventually(lambda: server.session().going_away)
        refusal = await refused(server)
        assert refusal.code is Code.SHUTTING_DOWN
        await box.session.finish(5)
        await eventually(lambda: server.registry.session(BOX) is None)
        assert (await refused(server)).code is Code.AGENT_AWAY
        assert isinstance(box.session.closed.result(), SessionLost | None)
