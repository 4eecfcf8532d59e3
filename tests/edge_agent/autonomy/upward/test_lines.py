"""Connections to the API server: those being made end with the others, and those of before are not used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from edge_agent.autonomy.upward import lines as module
from edge_agent.autonomy.upward.lines import Line, Lines
from tests.support.waits import eventually
from tunnel.aio.http.http1 import ServerConnection
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.core.wire.errors import StreamError


async def never(*, http2: bool) -> Conn:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    async def serve(conn: Conn) -> None:
        http = ServerConnection(conn)
        with suppress(StreamError):
            while await http.next_request() is not None:
                await http.respond(401)

    async def dial(*, http2: bool) -> Conn:
        conn = Conn()
        await connect_tcp(lambda: conn, "127.0.0.1", listener.ports[0])
        return conn

    listener = Listener("api", serve)
    await listener.listen_tcp("127.0.0.1:0")
    made = Lines(dial)
    yield made
    made.close()
    await listener.aclose()


async def asked(line: Line) -> None:
    await line.http.start("GET", "/", [("host", "x")])
    await line.http.finish()
    await line.response()
    assert await line.http.read_body(10) == b""


async def test_a_connection_that_does_not_come_about_is_not_waited_for_when_all_are_cut() -> None:
    """Where packets are dropped, the kernel tries for two minutes."""
    lines = Lines(never)
    taking = asyncio.get_running_loop().create_task(lines.take())
    await eventually(lambda: lines._making)
    lines.cut()
    async with asyncio.timeout(2):
        with pytest.raises(OSError, match="no connection to it comes about"):
            await taking
    assert not lines._making


async def test_nor_is_it_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIAL_S", 0.01)
    with pytest.raises(OSError, match="comes about"):
        await Lines(never).take()


async def test_the_next_request_shows_the_identity_as_it_is_now(lines: Lines) -> None:
    waiting, taken = await lines.take(), await lines.take()
    await asked(waiting)
    lines.give_back(waiting)
    lines.renew()
    assert lines.idle == 0
    await asked(taken)
    lines.give_back(taken)
    assert lines.idle == 0, "it was made before"
    later = await lines.take()
    await asked(later)
    lines.give_back(later)
    assert await lines.take() is later
    lines.give_back(later)


async def test_each_answer_is_told(lines: Lines) -> None:
    told: list[int] = []
    lines.on_answer = told.append
    line = await lines.take()
    await asked(line)
    lines.give_back(line)
    assert told == [401]
