"""Sockets that end in a reset until they are told otherwise."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from pathlib import Path

import pytest

from tests.support.targets import refusing_port
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tcp import connect_tcp, reset_when_closed

RESET = struct.pack("ii", 1, 0)


def lingers(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_accepted_inherits_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reset_when_closed(listener)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            assert lingers(accepted) == RESET
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


async def test_one_that_dials_has_it_and_ends_in_order_when_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        conn = await connect_tcp(Conn, *listener.getsockname())
        assert lingers(conn.transport.get_extra_info("socket")) == RESET
        peer, _ = listener.accept()
        with peer:
            await conn.write(b"last words")
            conn.close()
            await conn.lost()
            await asyncio.sleep(0)  # the socket itself is closed behind that
            assert peer.recv(100) == b"last words"
            assert peer.recv(100) == b""


async def test_one_that_is_just_dropped_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        conn = await connect_tcp(Conn, *listener.getsockname())
        peer, _ = listener.accept()
        with peer:
            conn.transport.abort()
            await conn.lost()
            await asyncio.sleep(0)
            with pytest.raises(ConnectionResetError):
                peer.recv(100)


async def test_the_next_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        async def resolve(*_words: object, **_options: object) -> object:
            return found

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(type(loop), "getaddrinfo", resolve, raising=False)
        conn = await connect_tcp(Conn, "name", port)
        assert conn.peer == f"127.0.0.1:{port}"
        conn.reset()


async def test_a_refusal_says_so_and_leaves_no_socket() -> None:
    before = open_files()
    with pytest.raises(ConnectionRefusedError):
        await connect_tcp(Conn, "127.0.0.1", refusing_port())
    await asyncio.sleep(0)
    assert open_files() == before


async def test_cancelled_it_leaves_no_socket() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                assert filler.connect_ex(full.getsockname()) in (0, errno.EINPROGRESS)
            before = open_files()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connect_tcp(Conn, *full.getsockname())
            await asyncio.sleep(0)
            assert open_files() == before
        finally:
            for filler in fillers:
                filler.close()
