"""Dialling TLS: what a server says before it leaves arrives, however it leaves."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.pki import Authority
from tests.support.tls_client import TlsClient
from tests.support.waits import eventually
from tunnel.aio.sockets import tls_client
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.core.wire.errors import StreamReset

pytestmark = [pytest.mark.timeout(20), pytest.mark.may_block("the test itself writes keys and loads the server's")]

AHEAD = 100_000
"""More than a Conn reads ahead, and less than the kernel keeps."""
Serve = Callable[[TlsClient], Awaitable[None]]


class Server:
    """Takes one connection and does as it is told, with the socket in its own hands."""

    def __init__(self, authority: Authority, context: ssl.SSLContext) -> None:
        self._context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = int(self.listener.getsockname()[1])
        self.trusting = ssl.create_default_context(cadata=authority.pem.decode())

    async def accept(self) -> TlsClient:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        sock.setblocking(False)
        return TlsClient(sock, self._context, server_side=True)

    async def dial(self, context: ssl.SSLContext | None = None, timeout_s: float = 5.0) -> Conn:
        context = context or self.trusting
        return await dial_tls("127.0.0.1", self.port, context, handshake_timeout_s=timeout_s)

    async def dialled(self) -> tuple[Conn, TlsClient]:
        """Both ends of a new connection."""
        async with asyncio.TaskGroup() as tasks:
            dialling = tasks.create_task(self.dial())
            peer = await self.accept()
            await peer.handshake()
        return dialling.result(), peer


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(hosts=["127.0.0.1"]).write(tmp_path_factory.mktemp("tls"), "server"))
    made = Server(authority, context)
    yield made
    made.listener.close()


async def read_all(conn: Conn) -> bytes:
    received = bytearray()
    while data := await conn.read():
        received += data
    return bytes(received)


async def test_both_directions_end_on_their_own(server: Server) -> None:
    conn, peer = await server.dialled()
    await conn.write(b"question")
    await conn.write_eof()
    assert await peer.receive_all() == b"question"
    await peer.send(b"answer")
    await peer.finish()
    assert await read_all(conn) == b"answer"
    await conn.aclose()
    await conn.lost()
    peer.cut()


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_a_server_that_leaves_at_once_is_heard_to_its_end(server: Server, reset: bool) -> None:
    conn, peer = await server.dialled()
    said = os.urandom(AHEAD)
    await peer.send(said)
    await peer.finish()
    await eventually(lambda: not unsent(peer.sock), what="the kernel has passed it all on")
    peer.cut(reset=reset)
    await asyncio.sleep(0.05)  # the end is there before anybody reads
    assert await read_all(conn) == said
    conn.reset()
    await conn.lost()


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_without_a_goodbye_it_is_a_cut(server: Server, reset: bool) -> None:
    conn, peer = await server.dialled()
    said = os.urandom(AHEAD)
    await peer.send(said)
    await eventually(lambda: not unsent(peer.sock), what="the kernel has passed it all on")
    peer.cut(reset=reset)
    with pytest.raises(StreamReset):
        await read_all(conn)
    await conn.lost()


async def test_a_server_that_nobody_vouches_for(server: Server) -> None:
    foreign = ssl.create_default_context(cadata=Authority("another").pem.decode())
    async with asyncio.TaskGroup() as tasks:
        dialling = tasks.create_task(refusal(server, foreign))
        peer = await server.accept()
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            await peer.handshake()
    assert isinstance(dialling.result(), ssl.SSLCertVerificationError)
    peer.cut()


async def test_a_server_that_leaves_in_the_handshake(server: Server) -> None:
    async with asyncio.TaskGroup() as tasks:
        dialling = tasks.create_task(refusal(server))
        (await server.accept()).cut()
    assert isinstance(dialling.result(), ConnectionError)


async def test_a_server_that_says_nothing(server: Server) -> None:
    assert "no TLS handshake within 0.1 s" in str(await refusal(server, timeout_s=0.1))


async def test_who_gives_up_just_when_the_handshake_is_over_leaves_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = tls_client._Handshake.secured

    def secured(self: tls_client._Handshake) -> None:
        over(self)
        dialling.cancel()

    monkeypatch.setattr(tls_client._Handshake, "secured", secured)
    dialling = asyncio.get_running_loop().create_task(server.dial())
    peer = await server.accept()
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        await heard(peer)
    with pytest.raises(asyncio.CancelledError):
        await dialling
    peer.cut()


async def heard(peer: TlsClient) -> None:
    """Hears the other side out, its handshake first."""
    async with asyncio.timeout(5):
        await peer.handshake()
        while await peer.receive():
            pass


async def refusal(server: Server, context: ssl.SSLContext | None = None, timeout_s: float = 5.0) -> Exception:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - SSLError is one, and the caller looks
        await server.dial(context, timeout_s)
    return raised.value


def unsent(sock: socket.socket) -> int:
    """Bytes that the other side's kernel has not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, struct.pack("i", 0)))[0])
