"""The server's side of a WebSocket over any Duplex: handshake, messages in parts, pings, and a close that is answered.

The frames are wsproto's. What messages mean belongs to the callers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason, ParseFailed
from wsproto.utilities import generate_accept_token

from tunnel.aio.http.http1 import Request
from tunnel.aio.sockets.duplex import Duplex

PING_INTERVAL_S = 30.0
"""Seconds between pings, which keep an idle connection alive in load balancers and NATs; their usual limit is 60 s."""
VERSION = "13"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message, which is passed on before the message is whole."""

    data: bytes
    finished: bool
    """Whether it is the last of its message."""


def key_of(request: Request) -> str | None:
    """Returns the key of a request that is a proper WebSocket handshake; None for any other."""
    key = request.headers.get("sec-websocket-key")
    proper = (request.upgrade or "").lower() == "websocket" and request.headers.get("sec-websocket-version") == VERSION
    return key if proper and key else None


def accept_headers(key: str, protocol: str | None) -> list[tuple[str, str]]:
    """Returns the headers of the 101 that accepts a handshake.

    Args:
        key: the key of the request.
        protocol: the one that was chosen of those that the client offers; None when it offers none.
    """
    headers = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", generate_accept_token(key.encode("latin-1")).decode("ascii")),
    ]
    return [*headers, ("sec-websocket-protocol", protocol)] if protocol else headers


class WebSocket:
    """One upgraded connection.

    One task receives, any number may send; each sender waits until the duplex took its bytes.
    """

    def __init__(self, duplex: Duplex, early: bytes = b"") -> None:
        """`early` is what the client sent behind its request."""
        self._duplex = duplex
        self._websocket = Connection(ConnectionType.SERVER, trailing_data=early)
        self._sending = asyncio.Lock()
        self._ponged = asyncio.Event()
        self._pongs: deque[bytes] = deque(maxlen=1)

    async def parts(self) -> AsyncIterator[Part]:
        """Yields what the client sends, until it closes or breaks the WebSocket protocol.

        Raises:
            StreamError: the connection was reset.
        """
        while True:
            try:
                for event in self._websocket.events():
                    if isinstance(event, CloseConnection):
                        return
                    if (part := self._take(event)) is not None:
                        yield part
            except ParseFailed:
                return
            data = await self._duplex.read()
            if not data:
                return
            self._websocket.receive_data(data)

    async def send_bytes(self, *messages: bytes) -> None:
        """Sends binary messages in one write, and waits while the client is slow.

        Raises:
            StreamError: the client is gone.
        """
        await self._send(*(BytesMessage(data=data) for data in messages))

    async def send_text(self, text: str) -> None:
        """Sends a text message, and waits while the client is slow.

        Raises:
            StreamError: the client is gone.
        """
        await self._send(TextMessage(data=text))

    async def keep_alive(self) -> None:
        """Answers pings and sends some; runs until it is cancelled.

        Apart from the receiver, which must go on reading while a client that sends does not take our bytes.

        Raises:
            StreamError: the client is gone.
        """
        while True:
            event: Event = Ping()
            try:
                async with asyncio.timeout(PING_INTERVAL_S):
                    await self._ponged.wait()
            except TimeoutError:
                pass
            self._ponged.clear()
            if self._pongs:
                event = Ping(payload=self._pongs.pop()).response()
            await self._send(event)

    async def close(self) -> None:
        """Sends the close of the WebSocket and the end of our bytes.

        Raises:
            StreamError: the client is gone.
        """
        async with self._sending:
            await self._write(CloseConnection(code=CloseReason.NORMAL_CLOSURE))
            await self._duplex.write_eof()

    # Internal

    async def _send(self, *events: Event) -> None:
        async with self._sending:
            await self._write(*events)

    async def _write(self, *events: Event) -> None:
        if self._websocket.state is ConnectionState.OPEN:
            await self._duplex.write(b"".join(map(self._websocket.send, events)))

    def _take(self, event: Event) -> Part | None:
        if isinstance(event, Ping):
            # Only the last of several unanswered ones needs an answer (RFC 6455 5.5.3), so a flood costs nothing.
            self._pongs.append(bytes(event.payload))
            self._ponged.set()
        elif isinstance(event, BytesMessage):
            return Part(bytes(event.data), event.message_finished)
        elif isinstance(event, TextMessage):
            return Part(event.data.encode(), event.message_finished)
        return None
