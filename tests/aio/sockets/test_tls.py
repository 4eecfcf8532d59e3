"""TLS with half-close, ends that are told from cuts, back-pressure, and clients that are no good."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.pki import Authority
from tests.support.tls_client import TlsClient
from tests.support.waits import eventually
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.splice import READ_BYTES
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.handshake_fault import HandshakeFault
from tunnel.aio.sockets.tls import TlsTransport
from tunnel.aio.sockets.tls_context import server_context
from tunnel.core.wire.errors import StreamError, StreamReset

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Watch:
    """A gate that lets all in and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def admit(self, transport: asyncio.Transport) -> bool:
        self.told.append("admit")
        return True

    def secured(self) -> None:
        self.told.append("secured")

    def failed(self, fault: HandshakeFault) -> None:
        self.told.append(f"failed: {fault.text}")

    def left(self) -> None:
        self.told.append("left")


class Site:
    """A server with one handler, and clients of it."""

    def __init__(self, port: int, authority: Authority) -> None:
        self.port = port
        self.authority = authority
        self.watches: list[Watch] = []
        self.clients: list[TlsClient] = []
        self.outcomes: list[StreamError | None] = []
        self.transports: list[TlsTransport] = []

    async def connect(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, handshake: bool = True) -> TlsClient:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.minimum_version = context.maximum_version = version
        client = TlsClient(sock, context)
        self.clients.append(client)
        if handshake:
            await client.handshake()
        return client

    async def outcome(self) -> StreamError | None:
        await eventually(lambda: self.outcomes)
        return self.outcomes.pop(0)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    server = authority.issue(hosts=["127.0.0.1"])
    return server_context(
        ServerTls(certificate=server.certificate_pem, key=server.key_pem, client_ca=authority.pem).load()
    )


@asynccontextmanager
async def serving(
    context: ssl.SSLContext,
    authority: Authority,
    handler: Callable[[Conn], Awaitable[None]],
    handshake_timeout_s: float = 5.0,
) -> AsyncIterator[Site]:
    tasks = TaskOwner("test")

    async def serve(conn: Conn) -> None:
        try:
            await handler(conn)
        except StreamError as error:
            site.outcomes.append(error)
        else:
            site.outcomes.append(None)
        finally:
            await conn.aclose()

    def made(conn: Conn) -> None:
        tasks.spawn("serve", serve(conn))

    def accept() -> TlsTransport:
        watch = Watch()
        site.watches.append(watch)
        transport = TlsTransport(context, Conn(made), watch, handshake_timeout_s=handshake_timeout_s)
        site.transports.append(transport)
        return transport

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    site = Site(server.sockets[0].getsockname()[1], authority)
    try:
        yield site
    finally:
        server.close()
        for client in site.clients:
            client.cut()
        await eventually(lambda: all(watch.told[-1:] == ["left"] for watch in site.watches))
        await tasks.aclose()


async def read_all(conn: Conn) -> bytes:
    received = bytearray()
    while data := await conn.read():
        received += data
    return bytes(received)


async def late_echo(conn: Conn) -> None:
    data = await read_all(conn)
    await conn.write(data)
    await conn.write_eof()
    await conn.read()


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_client_may_finish_first(
    context: ssl.SSLContext, authority: Authority, version: ssl.TLSVersion
) -> None:
    blob = os.urandom(2_000_000)
    async with serving(context, authority, late_echo) as site:
        client = await site.connect(version)
        await client.send(blob)
        await client.finish()
        assert await client.receive_all() == blob
        assert await site.outcome() is None
        assert site.watches[0].told[:2] == ["admit", "secured"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("early_bytes", [0, 100_000])
async def test_the_server_may_finish_first(
    context: ssl.SSLContext, authority: Authority, version: ssl.TLSVersion, early_bytes: int
) -> None:
    """Whatever the client sent before, meanwhile and after still arrives."""
    received: list[bytes] = []
    sent = asyncio.Event()

    async def finish_first(conn: Conn) -> None:
        await sent.wait()
        await conn.write(b"bye")
        await conn.write_eof()
        received.append(await read_all(conn))

    async with serving(context, authority, finish_first) as site:
        client = await site.connect(version)
        early, late = os.urandom(early_bytes), os.urandom(300_000)
        await client.send(early)
        sent.set()
        assert await client.receive_all() == b"bye"
        await client.send(late)
        await client.finish()
        assert await site.outcome() is None
        assert received == [early + late]


@pytest.mark.parametrize("reset", [False, True])
async def test_an_end_without_close_notify_is_a_cut(context: ssl.SSLContext, authority: Authority, reset: bool) -> None:
    received: list[bytes] = []

    async def collect(conn: Conn) -> None:
        while data := await conn.read():
            received.append(data)

    async with serving(context, authority, collect) as site:
        client = await site.connect()
        await client.send(b"all but the last byte")
        await eventually(lambda: received)
        client.cut(reset=reset)
        assert isinstance(await site.outcome(), StreamReset)
        assert b"".join(received) == b"all but the last byte"


async def test_a_client_that_answers_our_end_by_closing_is_no_cut(
    context: ssl.SSLContext, authority: Authority
) -> None:
    async def finish_first(conn: Conn) -> None:
        await conn.write_eof()
        assert await conn.read() == b""

    async with serving(context, authority, finish_first) as site:
        client = await site.connect()
        assert await client.receive_all() == b""
        client.cut()
        assert await site.outcome() is None


async def test_closing_delivers_everything_before(context: ssl.SSLContext, authority: Authority) -> None:
    blob = os.urandom(3_000_000)

    async def pour(conn: Conn) -> None:
        await conn.write(blob)

    async with serving(context, authority, pour) as site:
        client = await site.connect()
        assert await client.receive_all() == blob


async def test_a_reader_that_stops_stops_the_writer(context: ssl.SSLContext, authority: Authority) -> None:
    written = 0

    async def pour(conn: Conn) -> None:
        nonlocal written
        while True:
            await conn.write(bytes(65536))
            written += 65536

    async with serving(context, authority, pour) as site:
        client = await site.connect()
        await client.receive()
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.2)
        assert site.transports[0].get_write_buffer_size() < 400_000
        client.cut(reset=True)
        assert isinstance(await site.outcome(), StreamError)


async def test_a_writer_is_stopped_by_a_server_that_does_not_read(
    context: ssl.SSLContext, authority: Authority
) -> None:
    blob = os.urandom(24_000_000)
    go_on = asyncio.Event()
    digests: list[bytes] = []

    async def wait_then_read(conn: Conn) -> None:
        await go_on.wait()
        digest = hashlib.sha256()
        while data := await conn.read():
            digest.update(data)
        digests.append(digest.digest())

    async with serving(context, authority, wait_then_read) as site:
        client = await site.connect()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.send(blob)
        assert site.transports[0]._tls._incoming.pending <= READ_BYTES
        client.cut()
        go_on.set()
        assert isinstance(await site.outcome(), StreamReset)


async def test_a_buffered_protocol_may_take_over(context: ssl.SSLContext, authority: Authority) -> None:
    """As a splice does: pause, change the protocol, go on."""
    received = bytearray()
    ended = asyncio.Event()

    class Taker(asyncio.BufferedProtocol):
        buffer = memoryview(bytearray(5000))

        def get_buffer(self, _sizehint: int) -> memoryview:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            received.extend(self.buffer[:nbytes])

        def eof_received(self) -> bool:
            ended.set()
            return False

    async def hand_over(conn: Conn) -> None:
        received.extend(await conn.read(10))
        detached = conn.detach()
        received.extend(detached.leftover)
        detached.transport.set_protocol(Taker())
        detached.transport.resume_reading()
        await ended.wait()

    async with serving(context, authority, hand_over) as site:
        client = await site.connect()
        blob = os.urandom(1_000_000)
        await client.send(blob)
        await client.finish()
        assert await site.outcome() is None
        assert bytes(received) == blob


async def test_a_fault_of_the_protocol_behind_ends_the_connection(
    context: ssl.SSLContext, authority: Authority
) -> None:
    lost: list[Exception | None] = []

    class Broken(asyncio.Protocol):
        def __init__(self, transport: asyncio.Transport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            """The first of two records that come in one read stops it, the second fails."""
            if self.transport.is_reading() and not paused.is_set():
                paused.set()
                self.transport.pause_reading()
            else:
                raise RuntimeError("a fault of ours")

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append(exc)

    async def hand_over(conn: Conn) -> None:
        detached = conn.detach()
        detached.transport.set_protocol(Broken(detached.transport))
        detached.transport.resume_reading()
        await paused.wait()
        detached.transport.resume_reading()
        await eventually(lambda: lost)

    paused = asyncio.Event()
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: faults.append(about.get("exception")))
    async with serving(context, authority, hand_over) as site:
        client = await site.connect()
        await client.send(bytes(20_000))
        assert await site.outcome() is None
        assert [str(fault) for fault in faults] == ["a fault of ours"]


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(40), os.urandom(5000)],
    ids=["http", "overlong record", "noise"],
)
async def test_no_tls_is_refused_quietly(context: ssl.SSLContext, authority: Authority, said: bytes) -> None:
    async with serving(context, authority, late_echo) as site:
        client = await site.connect(handshake=False)
        await asyncio.get_running_loop().sock_sendall(client.sock, said)
        client.sock.shutdown(socket.SHUT_WR)
        await eventually(lambda: site.watches and site.watches[0].told[-1:] == ["left"])
        assert [word.partition(":")[0] for word in site.watches[0].told] == ["admit", "failed", "left"]
        assert site.outcomes == []


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_in_its_handshake(
    context: ssl.SSLContext, authority: Authority, reset: bool
) -> None:
    async with serving(context, authority, late_echo) as site:
        client = await site.connect(handshake=False)
        await eventually(lambda: site.watches and site.watches[0].told)
        client.cut(reset=reset)
        await eventually(lambda: site.watches and site.watches[0].told[-1:] == ["left"])
        assert [word.partition(":")[0] for word in site.watches[0].told] == ["admit", "failed", "left"]


async def test_a_silent_client_is_given_up(context: ssl.SSLContext, authority: Authority) -> None:
    async with serving(context, authority, late_echo, handshake_timeout_s=0.2) as site:
        client = await site.connect(handshake=False)
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, AssertionError)):
                assert await asyncio.get_running_loop().sock_recv(client.sock, 1)
        assert "failed: no TLS handshake within 0.2 s" in site.watches[0].told
