"""A client of `channel.k8s.io` over any Duplex, for tests of exec: what kubectl does, step by step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage

from tunnel.aio.http.http1 import ClientConnection, HeaderItems, Response
from tunnel.aio.sockets.duplex import Duplex

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


def exec_target(
    pod: str,
    command: Sequence[str],
    *,
    container: str = "host",
    stdin: bool = False,
    tty: bool = False,
    stderr: bool = True,
) -> str:
    """The request target of an exec, as an API server sends it to a kubelet."""
    flags = {"input": stdin, "output": True, "error": stderr and not tty, "tty": tty}
    query = [("command", part) for part in command] + [(name, "1") for name, on in flags.items() if on]
    return f"/exec/default/{pod}/{quote(container)}?{urlencode(query)}"


def upgrade_headers(protocols: str = f"{V5},{V4}") -> list[tuple[str, str]]:
    """The headers of a WebSocket upgrade."""
    return [
        ("host", "kubelet"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocols),
    ]


class UpgradeRefused(Exception):
    """The answer was not 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body.decode()}")
        self.status = status
        self.message: str = json.loads(body)["message"]


class ChannelClient:
    """One exec as its client sees it."""

    def __init__(self, duplex: Duplex, response: Response, early: bytes) -> None:
        self.duplex = duplex
        self.protocol = response.headers.get("sec-websocket-protocol")
        self.received: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
        self.pongs: list[bytes] = []
        self.pings = 0
        self.closed = False
        self.message_bytes: list[int] = []
        """How long each message was, its channel included."""
        self._message_bytes = 0
        self._websocket = Connection(ConnectionType.CLIENT, trailing_data=early)

    @classmethod
    async def open(cls, duplex: Duplex, target: str, headers: HeaderItems | None = None) -> ChannelClient:
        """Ask for the upgrade."""
        http = ClientConnection(duplex)
        response = await http.request("GET", target, upgrade_headers() if headers is None else headers)
        if response.status != 101:
            raise UpgradeRefused(response.status, await http.read_body(1 << 20))
        return cls(duplex, response, http.trailing_data())

    async def send(self, channel: int, data: bytes) -> None:
        await self.send_event(BytesMessage(data=bytes((channel,)) + data))

    async def send_event(self, event: Event) -> None:
        await self.duplex.write(self._websocket.send(event))

    async def resize(self, columns: int, rows: int) -> None:
        await self.send(RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    async def end_stdin(self) -> None:
        """The half-close of v5."""
        await self.send(CLOSE, bytes((STDIN,)))

    async def receive(self) -> bool:
        """Take in what comes next; False at the end."""
        if self.closed:
            return False
        data = await self.duplex.read()
        if not data:
            self.closed = True
            return False
        self._websocket.receive_data(data)
        for event in self._websocket.events():
            self._take(event)
        return True

    async def until(self, channel: int, wanted: bytes) -> bytes:
        """Receive until a channel has shown some bytes; all of that channel so far."""
        async with asyncio.timeout(20):
            while wanted not in self.received[channel]:
                assert await self.receive(), f"ended without {wanted!r}: {self.received}"
        return bytes(self.received[channel])

    async def finish(self) -> int:
        """Receive all; the exit code."""
        async with asyncio.timeout(50):
            while not self.closed:
                await self.receive()
        return self.exit_code()

    def status(self) -> dict[str, Any]:
        """The Status of the error channel."""
        status: dict[str, Any] = json.loads(self.received[ERROR])
        return status

    def exit_code(self) -> int:
        """As kubectl reads it."""
        status = self.status()
        if status["status"] == "Success":
            return 0
        assert status["reason"] == "NonZeroExitCode", status
        return next(int(cause["message"]) for cause in status["details"]["causes"] if cause["reason"] == "ExitCode")

    @property
    def stdout(self) -> bytes:
        return bytes(self.received[STDOUT])

    @property
    def stderr(self) -> bytes:
        return bytes(self.received[STDERR])

    # Internal

    def _take(self, event: Event) -> None:
        if isinstance(event, Ping):
            self.pings += 1
        elif isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.closed = True
        elif isinstance(event, Message):
            assert not isinstance(event, TextMessage)
            self._message_bytes += len(event.data)
            if event.message_finished:
                self.message_bytes.append(self._message_bytes)
                self._message_bytes = 0
            self._take_part(bytes(event.data), event.message_finished)

    _channel: int | None = None

    def _take_part(self, data: bytes, finished: bool) -> None:
        if self._channel is None and data:
            self._channel, data = data[0], data[1:]
        if self._channel is not None:
            self.received[self._channel] += data
        if finished:
            self._channel = None
