"""Every open leaves one record, whatever became of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from cloud_server.frontends.forward import Forward
from cloud_server.opens.audit import MAX_TARGET_CHARS, OpenRecord, audited
from tests.cloud_server.frontends.site import Site, site
from tests.support.waits import eventually
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import TcpTarget


class Door:
    """A forward, and a client of it."""

    def __init__(self, far: Site, listener: Listener, client: socket.socket, logs: list[Any]) -> None:
        self.far = far
        self.listener = listener
        self.client = client
        self._logs = logs

    def reset(self) -> None:
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()

    async def record(self) -> dict[str, Any]:
        """The one record, once everything has ended."""
        await eventually(lambda: not self.listener.connections and self._records())
        assert len(self._records()) == 1
        return self._records()[0]

    def _records(self) -> list[dict[str, Any]]:
        return [entry for entry in self._logs if "frontend" in entry and entry["event"] in ("stream", "refused")]


@asynccontextmanager
async def door(port: int) -> AsyncIterator[Door]:
    async with site() as far:
        one = Forward(far, "127.0.0.1:0", "box-7", TcpTarget("127.0.0.1", port), deadline_s=5.0)
        listener = Listener("forward", one.handle)
        await listener.listen_tcp("127.0.0.1:0")
        with capture_logs() as logs, socket.socket() as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", listener.ports[0]))
            try:
                yield Door(far, listener, client, logs)
            finally:
                await listener.aclose()


async def test_a_client_that_gives_up() -> None:
    async with door(3) as made:
        await eventually(lambda: made.far.dialling == 1)
        made.reset()
        record = await made.record()
    assert (record["event"], record["agent"], record["target"]) == ("refused", "box-7", "127.0.0.1:3")
    assert (record["code"], record["reason"]) == ("cancelled", "the client gave up")


async def test_a_server_that_stops_before_the_answer() -> None:
    async with door(3) as made:
        await eventually(lambda: made.far.dialling == 1)
        await made.listener.aclose()
        record = await made.record()
    assert (record["event"], record["code"], record["reason"]) == (
        "refused",
        "shutting_down",
        "the server is stopping",
    )


async def test_a_server_that_stops_in_the_middle() -> None:
    async with door(7) as made:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(made.client, b"12345")
        assert await loop.sock_recv(made.client, 5) == b"12345"
        await made.listener.aclose()
        record = await made.record()
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(made.client, 1)
    assert (record["event"], record["bytes_in"], record["bytes_out"]) == ("stream", 5, 5)
    assert record["ended"] == "shutting_down: the daemon is stopping"


async def test_a_reset_of_the_target() -> None:
    async with door(25) as made:
        await asyncio.get_running_loop().sock_sendall(made.client, b"x")
        record = await made.record()
    assert (record["event"], record["bytes_in"], record["bytes_out"]) == ("stream", 1, 0)
    assert record["ended"] == "connection_reset: reset by the target"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OpenRefused("no", Code.NOT_ALLOWED), "not_allowed"),
        (RuntimeError("with a secret"), "internal"),
        (asyncio.CancelledError(), "shutting_down"),
    ],
)
async def test_before_any_agent_was_asked(error: BaseException, code: str) -> None:
    with capture_logs() as logs, pytest.raises(type(error)):
        with audited(OpenRecord(frontend="connect", user="ann", peer="192.0.2.1:5000", asked="a" * 5000)):
            raise error
    (record,) = logs
    assert (record["event"], record["code"]) == ("refused", code)
    assert record["target"] == "a" * MAX_TARGET_CHARS
    assert "secret" not in str(record)
