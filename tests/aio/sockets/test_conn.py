"""A socket as a Duplex: bounded reading, waiting writers, ends and resets told apart, and the way to a splice."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.pki import Authority
from tests.support.tls_client import TlsClient
from tests.support.waits import eventually
from tunnel.aio.sockets.conn import NO_CERTIFICATE, PAUSED_READ_BYTES, READ_BUFFER_BYTES, Conn, format_address
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.core.wire.errors import Code, StreamBusy, StreamClosed, StreamError, StreamReset

T = TypeVar("T")

BLOB_BYTES = 8 * 1024 * 1024
"""More than two kernels' socket buffers hold."""


class Ends:
    """Our end, and the plain socket at the other one."""

    def __init__(self, conn: Conn, peer: socket.socket) -> None:
        self.conn = conn
        self.peer = peer

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.peer, data)

    async def receive_all(self) -> bytes:
        received = bytearray()
        while data := await asyncio.get_running_loop().sock_recv(self.peer, 1 << 18):
            received += data
        return bytes(received)

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()


@asynccontextmanager
async def joined(family: socket.AddressFamily = socket.AF_INET) -> AsyncIterator[Ends]:
    loop = asyncio.get_running_loop()
    if family == socket.AF_UNIX:
        peer, ours = socket.socketpair()
        peer.setblocking(False)
        ours.setblocking(False)
        _, conn = await loop.create_unix_connection(Conn, sock=ours)
        ends = Ends(conn, peer)
    else:
        with socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family) as listener:
            _, conn = await loop.create_connection(Conn, *listener.getsockname()[:2])
            peer, _ = listener.accept()
            peer.setblocking(False)
            ends = Ends(conn, peer)
    try:
        yield ends
    finally:
        ends.peer.close()
        conn.reset()
        await conn.lost()


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with joined() as made:
        yield made


# Reading


async def test_bytes_then_the_end(ends: Ends) -> None:
    await ends.send(b"hello")
    ends.peer.shutdown(socket.SHUT_WR)
    assert await ends.conn.read() == b"hello"
    assert await ends.conn.read() == b""
    assert await ends.conn.read() == b""


async def test_no_more_than_was_asked_for(ends: Ends) -> None:
    await ends.send(b"hello")
    assert [await ends.conn.read(2) for _ in range(3)] == [b"he", b"ll", b"o"]


async def test_a_peer_cannot_fill_our_memory(ends: Ends) -> None:
    blob = os.urandom(BLOB_BYTES)
    sending = _start(ends.send(blob))
    await eventually(lambda: not ends.conn.transport.is_reading())
    held_bytes = sum(map(len, ends.conn._chunks))
    assert READ_BUFFER_BYTES < held_bytes <= READ_BUFFER_BYTES + 256 * 1024  # one read beyond
    received = bytearray()
    while len(received) < len(blob):
        received += await ends.conn.read()
    await sending
    assert bytes(received) == blob


async def test_a_cancelled_read_loses_nothing(ends: Ends) -> None:
    reading = _start(ends.conn.read())
    await asyncio.sleep(0)
    reading.cancel()
    await ends.send(b"hello")
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await ends.conn.read() == b"hello"


async def test_first_bytes_stay_to_be_read_until_they_are_skipped(ends: Ends) -> None:
    assert await ends.conn.first_bytes(3) == b""
    await ends.send(b"abcdef")
    while not (first := await ends.conn.first_bytes(3)):
        await asyncio.sleep(0)
    assert first == b"abc"
    ends.conn.skip(3)
    ends.conn.skip(0)
    assert await ends.conn.read() == b"def"
    ends.conn.skip(0)


async def test_a_second_reader_is_told(ends: Ends) -> None:
    reading = _start(ends.conn.read())
    await asyncio.sleep(0)
    with pytest.raises(StreamBusy):
        await ends.conn.read()
    await ends.send(b"hello")
    assert await reading == b"hello"


async def test_a_reset_wakes_the_reader(ends: Ends) -> None:
    reading = _start(ends.conn.read())
    await asyncio.sleep(0)
    ends.reset()
    with pytest.raises(StreamReset) as caught:
        await reading
    assert caught.value.code is Code.CONNECTION_RESET


# Writing


async def test_closing_delivers_everything_before(ends: Ends) -> None:
    blob = os.urandom(BLOB_BYTES)
    ends.conn.transport.set_write_buffer_limits(BLOB_BYTES)
    await ends.conn.write(blob)
    await ends.conn.aclose()
    assert await ends.receive_all() == blob


async def test_a_slow_reader_holds_the_writer(ends: Ends) -> None:
    blob = os.urandom(BLOB_BYTES)
    writing = _start(ends.conn.write(blob))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not writing.done()
    with pytest.raises(StreamBusy):
        await ends.conn.write(b"second")
    receiving = _start(ends.receive_all())
    await writing
    await ends.conn.write_eof()
    assert await receiving == blob


async def test_a_reset_wakes_the_writer(ends: Ends) -> None:
    writing = _start(ends.conn.write(bytes(BLOB_BYTES)))
    await asyncio.sleep(0)
    ends.reset()
    with pytest.raises(StreamReset):
        await writing
    with pytest.raises(StreamReset):
        await ends.conn.write(b"more")


async def test_half_close(ends: Ends) -> None:
    await ends.conn.write(b"all I have")
    await ends.conn.write_eof()
    assert await ends.receive_all() == b"all I have"
    with pytest.raises(StreamClosed):
        await ends.conn.write(b"more")
    await ends.send(b"answer")
    assert await ends.conn.read() == b"answer"


# Ending


async def test_our_reset_is_a_reset_for_the_peer(ends: Ends) -> None:
    reading = _start(ends.conn.read())
    await asyncio.sleep(0)
    ends.conn.reset(Code.NOT_ALLOWED, "not for you")
    with pytest.raises(StreamClosed, match="not for you"):
        await reading
    with pytest.raises(ConnectionResetError):
        await ends.receive_all()


async def test_the_end_is_told_without_reading(ends: Ends) -> None:
    waiting = _start(ends.conn.lost())
    await asyncio.sleep(0)
    assert not waiting.done()
    ends.reset()
    async with asyncio.timeout(5):
        await waiting


# On its way to a splice


async def test_what_was_read_goes_along(ends: Ends) -> None:
    await ends.send(b"hello")
    assert await ends.conn.read(1) == b"h"
    detached = ends.conn.detach()
    assert (detached.leftover, detached.at_eof) == (b"ello", False)
    assert not detached.transport.is_reading()


async def test_the_end_goes_along(ends: Ends) -> None:
    await ends.send(b"hello")
    ends.peer.shutdown(socket.SHUT_WR)
    await eventually(lambda: ends.conn._eof)
    detached = ends.conn.detach()
    assert (detached.leftover, detached.at_eof) == (b"hello", True)


async def test_a_lost_connection_goes_nowhere(ends: Ends) -> None:
    ends.reset()
    await ends.conn.lost()
    with pytest.raises(StreamReset):
        ends.conn.detach()


# What it is


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_peers_that_vanish_are_noticed_and_small_writes_do_not_wait(family: socket.AddressFamily) -> None:
    async with joined(family) as ends:
        sock = ends.conn.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, pause, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + pause * count <= 120


async def test_a_peer_has_a_name() -> None:
    async with joined() as ends:
        assert ends.conn.peer == format_address(ends.peer.getsockname())
    async with joined(socket.AF_INET6) as ends:
        assert ends.conn.peer.startswith("[::1]:")
        assert ends.conn.unix_peer is None
    async with joined(socket.AF_UNIX) as ends:
        assert ends.conn.peer == f"uid {os.getuid()}"
        assert ends.conn.tls_peer_spiffe is None
        assert ends.conn.tls_peer == NO_CERTIFICATE
        assert ends.conn.unix_peer == (os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_a_peer_that_is_gone_has_its_name(family: socket.AddressFamily) -> None:
    async with joined(family) as ends:
        name = ends.conn.peer
        ends.conn.reset()
        await ends.conn.lost()
        assert ends.conn.peer == name != ""


def test_no_address_is_no_name() -> None:
    assert format_address(None) == ""


# asyncio's own TLS, which dials a kubelet


@pytest.mark.parametrize("cut", [False, True])
async def test_over_tls_a_cut_is_no_end(tmp_path: Path, cut: bool) -> None:
    authority = Authority()
    issued = authority.issue(hosts=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued.write(tmp_path, "server"))
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        dialling = _start(loop.create_connection(Conn, *listener.getsockname(), ssl=trust))
        sock, _ = await loop.sock_accept(listener)
    peer = TlsClient(sock, context, server_side=True)
    await peer.handshake()
    _, conn = await dialling
    await peer.send(b"hello")
    if not cut:
        await peer.finish()
    peer.cut(reset=cut)
    got: list[bytes | StreamError] = []
    try:
        while data := await conn.read():
            got.append(data)
        got.append(data)
    except StreamError as error:
        got.append(error)
    assert isinstance(got[-1], StreamReset) if cut else got == [b"hello", b""]
    await conn.lost()


async def test_a_paused_connection_reads_nothing_before_somebody_asks() -> None:
    async def talks(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1000)

    server = await asyncio.start_server(talks, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        conn = await connect_tcp(lambda: Conn(paused=True), host, port)
        sock = conn.transport.get_extra_info("socket")
        await eventually(lambda: len(socket_peek(sock)) == 1000)
        await asyncio.sleep(0)
        assert not conn._chunks
        assert await conn.read() == b"x" * 1000
        conn.reset()
        other = await connect_tcp(lambda: Conn(paused=True), host, port)
        sock = other.transport.get_extra_info("socket")
        await eventually(lambda: len(socket_peek(sock)) == 1000)
        assert other.detach().leftover == b""
        assert not other.transport.is_reading()
        other.reset()


async def test_a_paused_connection_takes_little_of_what_was_there_before_it() -> None:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.setblocking(False)
    said = os.urandom(100_000)
    assert peer.send(said) == len(said), "all of it is there when reading begins"
    _, conn = await asyncio.get_running_loop().create_unix_connection(lambda: Conn(paused=True), sock=ours)
    for _ in range(5):
        await asyncio.sleep(0)
    assert sum(map(len, conn._chunks)) <= PAUSED_READ_BYTES
    read = b""
    while len(read) < len(said):
        read += await conn.read()
    assert read == said
    conn.reset()
    peer.close()


def socket_peek(sock: socket.socket) -> bytes:
    """What waits in it; the socket of a transport is no whole one."""
    with socket.socket(fileno=os.dup(sock.fileno())) as other:
        try:
            return other.recv(2000, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
