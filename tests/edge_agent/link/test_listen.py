from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from edge_agent.link.listen import DIAL_TIMEOUT_S, LocalListen
from tests.support.joined import Pair, joined
from tests.support.waits import eventually
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import ServiceTarget, Target

CLOUD = ServiceTarget("kube-apiserver")


@dataclass
class Up:
    """A link to a cloud that echoes, refuses, or never answers."""

    pair: Pair
    refuses: OpenRefused | None = None
    hangs: bool = False
    given_up: bool = False
    port: int = 0

    async def open(self, target: Target, *, deadline_s: float, early_data: bytes = b"") -> Stream:
        assert (target, deadline_s) == (CLOUD, DIAL_TIMEOUT_S)
        if self.refuses is not None:
            raise self.refuses
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up = True
        return await self.pair.server.open(target, deadline_s=deadline_s, early_data=early_data)


async def echo(incoming: IncomingStream) -> None:
    stream = incoming.accept("10.0.0.1:6443")
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


@asynccontextmanager
async def listening() -> AsyncIterator[Up]:
    async with joined(echo) as pair:
        up = Up(pair)
        listener = Listener("listen", LocalListen(up, "127.0.0.1:6443", CLOUD).handle)
        await listener.listen_tcp("127.0.0.1:0")
        up.port = listener.ports[0]
        try:
            yield up
        finally:
            await listener.aclose()


async def test_a_connection_is_carried_with_half_close_and_recorded() -> None:
    with capture_logs() as logs:
        async with listening() as up:
            reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
            await eventually(lambda: [line for line in logs if line["event"] == "stream"])
    (record,) = [line for line in logs if line["event"] == "stream"]
    assert (record["listen"], record["target"]) == ("127.0.0.1:6443", "kube-apiserver")
    assert (record["bytes_in"], record["bytes_out"], record["ended"]) == (5, 5, "closed")


async def test_what_is_refused_is_reset_and_recorded() -> None:
    with capture_logs() as logs:
        async with listening() as up:
            up.refuses = OpenRefused("this server exposes no such thing", Code.NO_SERVICE)
            reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
    (record,) = [line for line in logs if line["event"] == "refused"]
    assert (record["code"], record["reason"]) == ("no_service", "this server exposes no such thing")


async def test_a_client_that_gives_up_cancels_the_dial() -> None:
    with capture_logs() as logs:
        async with listening() as up:
            up.hangs = True
            _, writer = await asyncio.open_connection("127.0.0.1", up.port)
            # An end alone is no giving up; a reset is.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await eventually(lambda: up.given_up)
            await eventually(lambda: [line for line in logs if line["event"] == "refused"])
    (record,) = [line for line in logs if line["event"] == "refused"]
    assert record["code"] == "cancelled"
