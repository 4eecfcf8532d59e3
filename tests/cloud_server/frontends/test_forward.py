"""Static forwards: a connection as good as a direct one, and a reset where there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloud_server.frontends.forward import Forward
from tests.cloud_server.frontends.site import BANNER, Site, site
from tests.support.doors import who
from tests.support.waits import eventually
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.limits import MAX_EARLY_BYTES
from tunnel.core.wire.target import TcpTarget


@asynccontextmanager
async def forward(port: int, agent: str = "box-7", deadline_s: float = 5.0) -> AsyncIterator[tuple[Site, int]]:
    async with site() as far:
        caller = who().static_forward("127.0.0.1:0")
        one = Forward(far.doors.door, caller, agent, TcpTarget("127.0.0.1", port), deadline_s=deadline_s)
        listener = Listener("forward", one.handle)
        await listener.listen_tcp("127.0.0.1:0")
        try:
            yield far, listener.ports[0]
        finally:
            await listener.aclose()


async def connect(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def receive_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
        received += data
    return bytes(received)


async def test_half_close_echo_sent_before_the_connection_is_up() -> None:
    blob = os.urandom(1_000_000)
    async with forward(7) as (_, port):
        with await connect(port) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, blob[:50_000])
            await asyncio.get_running_loop().sock_sendall(sock, blob[50_000:])
            sock.shutdown(socket.SHUT_WR)
            assert await receive_all(sock) == blob


async def test_what_a_client_sends_at_once_goes_along_with_the_open_and_arrives_once() -> None:
    async with forward(7) as (far, port):
        for hello in (b"hello", bytes(range(256)) * 16):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(hello)  # nothing runs here meanwhile: it waits when the connection is accepted
                sock.shutdown(socket.SHUT_WR)
                sock.setblocking(False)
                assert await receive_all(sock) == hello
            assert far.asked[-1].early_data == hello[:MAX_EARLY_BYTES]


async def test_server_speaks_first() -> None:
    async with forward(21) as (_, port):
        with await connect(port) as sock:
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == BANNER


@pytest.mark.parametrize(("port", "agent"), [(1, "box-7"), (2, "box-7"), (22, "box-8")])
async def test_a_refused_open_is_a_reset(port: int, agent: str) -> None:
    async with forward(port, agent) as (far, listening):
        with await connect(listening) as sock:
            with pytest.raises(ConnectionResetError):
                await receive_all(sock)
        (record,) = far.records
        assert (record["event"], record["agent"], record["target"]) == ("refused", agent, f"127.0.0.1:{port}")
        assert (record["kind"], record["who"]) == ("static_forward", "127.0.0.1:0")


async def test_silence_is_a_reset_at_the_deadline() -> None:
    async with forward(3, deadline_s=0.3) as (far, port):
        with await connect(port) as sock:
            with pytest.raises(ConnectionResetError):
                await receive_all(sock)
        await eventually(lambda: far.given_up == 1)


async def test_a_reset_of_the_target_is_a_reset() -> None:
    async with forward(25) as (_, port):
        with await connect(port) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, b"x")
            with pytest.raises(ConnectionResetError):
                await receive_all(sock)


async def test_a_reset_of_the_client_cancels_the_dial() -> None:
    async with forward(3) as (far, port):
        sock = await connect(port)
        await eventually(lambda: far.dialling == 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await eventually(lambda: far.given_up == 1)
