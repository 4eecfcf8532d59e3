from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from edge_agent.link.listen import DIAL_TIMEOUT_S, LocalListen
from edge_agent.operate.traffic import Traffic
from tests.support.joined import Pair, joined
from tests.support.records import Records
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
    records: Records = field(default_factory=Records)
    traffic: Traffic = field(default_factory=Traffic)
    trace_ids: list[str] = field(default_factory=list)

    async def open(self, target: Target, *, deadline_s: float, trace_id: str = "", early_data: bytes = b"") -> Stream:
        self.trace_ids.append(trace_id)
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
        if not data.startswith(b"x"):
            await stream.write(data)
    await stream.write_eof()


@asynccontextmanager
async def listening() -> AsyncIterator[Up]:
    async with joined(echo) as pair:
        up = Up(pair)
        listener = Listener("listen", LocalListen(up, "127.0.0.1:6443", CLOUD, up.records, up.traffic).handle)
        await listener.listen_tcp("127.0.0.1:0")
        up.port = listener.ports[0]
        try:
            yield up
        finally:
            await listener.aclose()


async def test_a_connection_is_carried_with_half_close_and_recorded_the_right_way_round() -> None:
    async with listening() as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(b"hello, ")
        assert await reader.readexactly(7) == b"hello, "
        begun = list(up.records.lines)
        writer.write(b"world")
        writer.write_eof()
        assert await reader.read() == b"world"
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: up.records.of("end"))
    (start,), (end,) = begun, up.records.of("end")
    assert start["event"] == "open"
    assert (end["listen"], end["target"], end["resolved"]) == ("127.0.0.1:6443", "kube-apiserver", "10.0.0.1:6443")
    assert (end["bytes_from_agent"], end["bytes_to_agent"], end["reason"]) == (12, 12, "closed")
    assert [start["trace_id"]] == [end["trace_id"]] == up.trace_ids
    assert up.traffic.bytes() == {"listen": (12, 12)}
    assert not up.traffic.running()


async def test_directions_are_those_of_the_box() -> None:
    """What a program on the box sends goes from the agent, whoever opened the connection."""
    async with listening() as up:
        _, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(b"x" * 1000)
        writer.write_eof()
        await eventually(lambda: up.records.of("end"))
        writer.close()
    (end,) = up.records.of("end")
    assert (end["bytes_from_agent"], end["bytes_to_agent"]) == (1000, 0)


async def test_what_is_refused_is_reset_and_recorded() -> None:
    async with listening() as up:
        up.refuses = OpenRefused("this server exposes no such thing", Code.NO_SERVICE)
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    (record,) = up.records.of("refused")
    assert (record["code"], record["outcome"], record["reason"]) == (
        "LL4104",
        "no_service",
        "this server exposes no such thing",
    )
    assert up.traffic.refused == {("listen", Code.NO_SERVICE): 1}


async def test_what_cannot_be_recorded_is_not_carried() -> None:
    async with listening() as up:
        up.records.fault = "the disk is full"
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    assert [line["event"] for line in up.records.lines] == ["refused"]
    assert up.trace_ids == []


async def test_a_client_that_gives_up_cancels_the_dial() -> None:
    async with listening() as up:
        up.hangs = True
        _, writer = await asyncio.open_connection("127.0.0.1", up.port)
        # An end alone is no giving up; a reset is.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await eventually(lambda: up.given_up)
        await eventually(lambda: up.records.of("refused"))
    (record,) = up.records.of("refused")
    assert record["outcome"] == "cancelled"
