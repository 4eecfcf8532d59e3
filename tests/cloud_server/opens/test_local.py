"""Opening streams at agents while links come and go, over the first route that works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud_server.agents import agents as agents_module
from cloud_server.opens import local as local_module
from cloud_server.opens.live import LiveOpen, Permitted
from cloud_server.opens.local import MAX_TRIES, Local
from cloud_server.routing.route import Route
from tests.support.doors import ANN, Doors, asking
from tests.support.session_server import BOX, RawBox, SessionServer, session_server
from tests.support.state import joined
from tests.support.waits import eventually
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost
from tunnel.core.wire.limits import Timing
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import Target, TcpTarget

TARGET = TcpTarget("127.0.0.1", 7)
DEADLINE_S = 6.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SessionServer]:
    async with session_server(tmp_path) as made:
        yield made


async def opened(server: SessionServer, deadline_s: float = 5.0, early_data: bytes = b"") -> Stream:
    door = Doors(Local(server.registry, server.directory)).door
    request = asking(Route(BOX, TARGET), deadline_s=deadline_s, early_data=early_data, trace_id="c0ffee")
    live = await door.open(request)
    assert live is not None
    return live.opened()


async def refused(server: SessionServer, deadline_s: float = 5.0, early_data: bytes = b"") -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await opened(server, deadline_s, early_data)
    return caught.value


def now() -> float:
    return asyncio.get_running_loop().time()


# Several routes


class Choosy(Local):
    """Refuses at the agents that it is told to, and takes all the time it has where the code is DEADLINE."""

    def __init__(self, **refusals: Code) -> None:
        self.refusals = refusals
        self.shares_s: list[float] = []

    async def _open_at(self, live: LiveOpen, agent: str, target: Target, give_up_s: float) -> Stream:
        self.shares_s.append(round(give_up_s - now(), 3))
        code = self.refusals.get(agent)
        if code is None:
            return object.__new__(Stream)
        if code is Code.DEADLINE:
            await asyncio.sleep(give_up_s - now())
        raise OpenRefused(f"{agent} said no", code)


def trying(*agents: str) -> LiveOpen:
    live = LiveOpen(1, asking(deadline_s=DEADLINE_S))
    live.permitted = [Permitted(Route(agent, TARGET), f"rule of {agent}") for agent in agents]
    return live


async def test_one_route_has_all_the_time() -> None:
    local, live = Choosy(), trying("a")
    await local.open(live)
    assert local.shares_s == [DEADLINE_S]
    assert (live.agent, live.target, live.rule, live.tried) == ("a", TARGET, "rule of a", [])


async def test_the_next_route_is_tried_when_one_refuses() -> None:
    live = trying("a", "b", "c")
    await Choosy(a=Code.REFUSED, b=Code.AGENT_AWAY).open(live)
    assert (live.agent, live.rule) == ("c", "rule of c")
    assert live.tried == ["a 127.0.0.1:7: refused", "b 127.0.0.1:7: agent_away"]


async def test_the_last_refusal_is_the_answer() -> None:
    live = trying("a", "b")
    with pytest.raises(OpenRefused, match="b said no") as caught:
        await Choosy(a=Code.AGENT_AWAY, b=Code.REFUSED).open(live)
    assert caught.value.code is Code.REFUSED
    assert live.agent == "b"


@pytest.mark.looptime
async def test_tries_share_the_deadline() -> None:
    local = Choosy(a=Code.DEADLINE, b=Code.REFUSED, c=Code.DEADLINE)
    with pytest.raises(OpenRefused, match="c said no"):
        await local.open(trying("a", "b", "c"))
    assert local.shares_s == [2.0, 2.0, 4.0]
    assert now() == pytest.approx(DEADLINE_S)


async def test_no_more_than_a_few_are_tried() -> None:
    names = [f"agent-{number}" for number in range(MAX_TRIES + 2)]
    local = Choosy(**dict.fromkeys(names, Code.REFUSED))
    with pytest.raises(OpenRefused):
        await local.open(trying(*names))
    assert len(local.shares_s) == MAX_TRIES


# Agents that come and go


async def test_an_agent_that_was_here_before_a_restart_is_waited_for(server: SessionServer) -> None:
    async with RawBox(server) as before:
        await before.connect()
    server.registry._entries.clear()  # as after a restart: joined, and nothing else is known
    server.directory._sessions.clear()
    async with asyncio.TaskGroup() as tasks, RawBox(server) as box:
        waiting = [tasks.create_task(opened(server)) for _ in range(2)]
        await eventually(lambda: BOX in server.directory._arrivals)
        await box.connect()
        for stream in waiting:
            assert str((await stream).target) == str(TARGET)
    assert BOX not in server.directory._arrivals


async def test_until_the_deadline_and_not_for_ever_after_the_start(
    server: SessionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await joined(server.store, BOX, b"k" * 32)
    monkeypatch.setattr(local_module, "LINK_WAIT_S", 0.1)
    start = now()
    assert (await refused(server, deadline_s=0.5)).code is Code.AGENT_AWAY
    assert now() - start >= 0.49
    monkeypatch.setattr(local_module, "LINK_WAIT_S", 60.0)
    monkeypatch.setattr(agents_module, "JUST_STARTED_S", 0.0)
    assert (await refused(server)).code is Code.AGENT_AWAY
    assert now() - start < 30.0


async def test_a_stream_says_who_asked_and_how_it_is_called_in_all_logs(server: SessionServer) -> None:
    asked: list[tuple[Principal, str]] = []

    async def note(incoming: IncomingStream) -> None:
        asked.append((incoming.principal, incoming.trace_id))
        incoming.refuse(Code.REFUSED, "127.0.0.1:7: connection refused")

    async with RawBox(server, acceptor=note) as box:
        await box.connect()
        refusal = await refused(server)
    assert asked == [(ANN.principal, "c0ffee")]
    assert (refusal.code, str(refusal)) == (Code.REFUSED, f"agent {BOX}: 127.0.0.1:7: connection refused")


async def test_an_agent_that_nobody_knows_and_one_that_is_away_are_answered_at_once(
    server: SessionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_module, "JUST_STARTED_S", 0.0)
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
    monkeypatch.setattr(local_module, "LINK_WAIT_S", wait_s)
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
        await eventually(lambda: server.directory.session(BOX) is None)
        assert (await refused(server)).code is Code.AGENT_AWAY
        assert isinstance(box.session.closed.result(), SessionLost | None)
