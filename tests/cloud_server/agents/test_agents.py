"""The agents of a server: who is there, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud_server.agents.agents import Change
from cloud_server.trust.agents import IdentityRejected
from tests.support.session_server import BOX, RawBox, SessionServer, session_server
from tests.support.state import joined
from tests.support.waits import eventually
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("127.0.0.1", 7)
JOINED = datetime(2025, 1, 2, tzinfo=UTC)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SessionServer]:
    async with session_server(tmp_path) as made:
        yield made


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
        assert (here.reason, gone.reason) == ("", f"{here.address}: connection closed")
        assert server.directory.session(BOX) is not None, "it waits for the next link"


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
        registry.lost(BOX, old, "reset")
        assert registry.agents()[0].connected, "the session has a newer link"
        await two.connect()
        registry.lost(BOX, old, "reset")
        assert registry.agents()[0].connected, "the agent has a newer session"
        assert server.session() is not old
        assert server.session().attached
        registry.lost("nobody", old, "reset")


async def test_an_agent_whose_name_is_taken_away_is_gone_at_once(server: SessionServer) -> None:
    async with RawBox(server) as box:
        await box.connect()
        session = server.session()
        server.registry.removed(BOX, IdentityRejected(f"{BOX} was revoked"))
        assert str(await asyncio.shield(session.closed)) == f"{BOX} was revoked"
        assert server.directory.session(BOX) is None
        assert server.directory.sessions() == []
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
        await eventually(lambda: len(server.registry._changes._followers) == 2)
        await box.connect()
        box.carriers[-1].close()
        await eventually(lambda: not server.connected())
        await box.connect()
        server.registry.removed(BOX, IdentityRejected("revoked"))
    expected = [(Change.CONNECTED, True), (Change.AWAY, False), (Change.CONNECTED, True), (Change.REMOVED, False)]
    assert heard == [[(change, BOX, connected) for change, connected in expected]] * 2
