"""The server's side of a WebSocket, with wsproto's client at the other end."""

from __future__ import annotations

import asyncio

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from tests.support.duplex_pair import duplex_pair
from tunnel.aio.http.http1 import Headers, Request
from tunnel.aio.http.websocket import Part, WebSocket, accept_headers, key_of
from tunnel.aio.sockets.duplex import Duplex

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""Of RFC 6455, section 1.3."""


def _request(**headers: str) -> Request:
    usual = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": KEY}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("GET", "/", Headers((usual | given).items()))


def test_a_handshake() -> None:
    assert key_of(_request()) == KEY
    assert key_of(_request(upgrade="WebSocket")) == KEY
    answer = dict(accept_headers(KEY, "x"))
    assert answer["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer["sec-websocket-protocol"] == "x"
    assert "sec-websocket-protocol" not in dict(accept_headers(KEY, None))


@pytest.mark.parametrize("header", ["upgrade", "connection", "sec_websocket_version", "sec_websocket_key"])
def test_what_is_no_handshake(header: str) -> None:
    assert key_of(_request(**{header: ""})) is None


class _Client:
    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._websocket = Connection(ConnectionType.CLIENT)

    async def send(self, *events: Event) -> None:
        await self._duplex.write(b"".join(map(self._websocket.send, events)))

    async def receive(self) -> list[Event]:
        self._websocket.receive_data(await self._duplex.read())
        return list(self._websocket.events())


async def test_messages_come_in_parts_and_pings_are_answered() -> None:
    one, other = duplex_pair()
    client, socket = _Client(one), WebSocket(other)
    await client.send(BytesMessage(b"a", message_finished=False), BytesMessage(b"b"), Ping(b"p"), TextMessage("c"))
    parts = []
    async with asyncio.TaskGroup() as tasks:
        alive = tasks.create_task(socket.keep_alive())
        async for part in socket.parts():
            parts.append(part)
            if part.data == b"c":
                break
        assert await client.receive() == [Pong(payload=b"p")]
        alive.cancel()
    assert parts == [Part(b"a", False), Part(b"b", True), Part(b"c", True)]
    await socket.send_text("t")
    assert await client.receive() == [TextMessage(data="t")]
    await socket.send_bytes(b"x")
    assert await client.receive() == [BytesMessage(data=b"x")]
    await socket.close()
    assert isinstance((await client.receive())[0], CloseConnection)


async def test_nonsense_and_a_close_end_it() -> None:
    one, other = duplex_pair()
    await one.write(b"\xff\xff\xff\xff")
    assert [part async for part in WebSocket(other).parts()] == []
    one, other = duplex_pair()
    client = _Client(one)
    await client.send(CloseConnection(1000))
    assert [part async for part in WebSocket(other).parts()] == []
