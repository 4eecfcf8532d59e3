"""Splices between real sockets and real sessions: client socket - splice - tunnel - splice - target socket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.joined import Pair, joined
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.sessions import splice as splice_module
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.splice import SpliceResult, splice
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tcp import reset_when_closed
from tunnel.core.streams.send_half import Send
from tunnel.core.wire.errors import StreamReset
from tunnel.core.wire.target import TcpTarget

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Through:
    """A client's end of the whole path, and what the splices said at their end."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.address = ("", 0)
        self.results: list[SpliceResult] = []
        self.streams: list[Stream] = []
        """The client's ends of the streams, in the order of the connections."""

    def enter(self, conn: Conn) -> None:
        """Serve a connection to an entry."""
        self.pair.runs.spawn("enter", self._enter(conn))

    async def _enter(self, conn: Conn) -> None:
        stream = await self.pair.server.open(TcpTarget("x", 1), deadline_s=5)
        self.streams.append(stream)
        self.results.append(await splice(stream, conn.detach()))

    async def client(self) -> socket.socket:
        """A non-blocking socket that is connected to the entry."""
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return sock


@asynccontextmanager
async def path_to(target: Handler) -> AsyncIterator[Through]:
    """An entry socket, spliced to a stream, spliced to a target that `target` serves."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []

    async def serve_target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await target(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    target_server = await asyncio.start_server(serve_target, "127.0.0.1", 0)
    servers.append(target_server)
    target_address = target_server.sockets[0].getsockname()

    async def acceptor(incoming: IncomingStream) -> None:
        _, conn = await loop.create_connection(Conn, *target_address)
        path.results.append(await splice(incoming.accept(), conn.detach()))

    async with joined(acceptor) as pair:
        path = Through(pair)
        entry = await loop.create_server(lambda: Conn(path.enter), "127.0.0.1", 0)
        servers.append(entry)
        path.address = entry.sockets[0].getsockname()
        try:
            yield path
        finally:
            for server in servers:
                server.close()


async def receive_all(sock: socket.socket) -> bytes:
    loop, got = asyncio.get_running_loop(), bytearray()
    while data := await loop.sock_recv(sock, 1 << 18):
        got += data
    return bytes(got)


async def both_done(path: Through) -> list[SpliceResult]:
    async with asyncio.timeout(10):
        while len(path.results) < 2:
            await asyncio.sleep(0.01)
    return path.results


async def half_close_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read()  # until FIN
    writer.write(data)
    await writer.drain()


async def test_half_close_echo() -> None:
    blob = os.urandom(3_000_000)
    async with path_to(half_close_echo) as path:
        loop = asyncio.get_running_loop()
        with await path.client() as sock:
            await loop.sock_sendall(sock, blob)
            sock.shutdown(socket.SHUT_WR)
            assert await receive_all(sock) == blob
        results = await both_done(path)
        assert [result.reason for result in results] == ["closed", "closed"]
        assert {result.bytes_from_socket for result in results} == {len(blob)}


async def test_until_all_is_with_the_kernel_the_socket_would_reset_if_the_process_died() -> None:
    """Both directions have ended, and much of it still waits in the process for a client that reads slowly."""
    blob = os.urandom(12_000_000)
    entered: list[Conn] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(blob)

    async with path_to(answer) as path:
        loop = asyncio.get_running_loop()
        enter = path.enter

        def remember(conn: Conn) -> None:
            entered.append(conn)
            enter(conn)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            reset_when_closed(listener)
            listener.setblocking(False)
            entry = await loop.create_server(lambda: Conn(remember), sock=listener)
            path.address = listener.getsockname()
            with await path.client() as sock:
                sock.shutdown(socket.SHUT_WR)
                got = bytearray()
                while len(got) < len(blob) - 1_000_000:  # windows grow while it reads
                    got += await loop.sock_recv(sock, 65536)
                await eventually(lambda: path.streams[0].statistics().bytes_received == len(blob))
                await eventually(lambda: path.streams[0].error is None)
                transport = entered[0].transport
                while not transport.is_closing():
                    lingers = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
                    assert lingers == struct.pack("ii", 1, 0)
                    got += await loop.sock_recv(sock, 65536)
                assert bytes(got + await receive_all(sock)) == blob
            entry.close()


async def test_write_then_close_delivers_everything() -> None:
    blob = os.urandom(5_000_000)
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        while data := await reader.read(65536):
            digest.update(data)
            await asyncio.sleep(0)
        got.set_result(digest.digest())

    async with path_to(sink) as path:
        with await path.client() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, blob)
        async with asyncio.timeout(20):
            assert await got == hashlib.sha256(blob).digest()


async def test_answers_to_a_client_that_left_do_not_harm_what_it_sent() -> None:
    blob = os.urandom(200_000)
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await reader.readexactly(1)
        await left.wait()
        while data := await reader.read(1000):
            received += data
            writer.write(b"thank you")  # the client's kernel resets this, and then its whole connection
            await asyncio.sleep(0)
        got.set_result(received)

    async with path_to(answering) as path:
        with await path.client() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, blob)
        # The client's FIN has gone all the way when its direction of the stream is finished.
        core = path.pair.server.core
        await eventually(lambda: all(one.send.state is Send.DONE for one in core._streams.all()))
        left.set()
        async with asyncio.timeout(10):
            assert await got == blob
        assert {result.reason for result in await both_done(path)} == {"closed"}


async def test_an_endless_target_is_held_back_once_its_client_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_module, "LINGER_S", 1.0)
    sent = 0
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        over.set_result(None)

    async with path_to(endless) as path:
        with await path.client() as sock:
            await asyncio.get_running_loop().sock_recv(sock, 1)
            sock.shutdown(socket.SHUT_WR)
            await eventually(lambda: path.streams[0].statistics().bytes_received > 65536)
        async with asyncio.timeout(10):
            await over
    # What is thrown away, the kernel's buffers, and what the client's window let through.
    assert splice_module.LINGER_BYTES < sent < 64 * 1024 * 1024


async def test_server_speaks_first() -> None:
    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-banner\r\n")
        await reader.read()

    async with path_to(banner) as path:
        for _ in range(20):
            with await path.client() as sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"SSH-2.0-banner\r\n"


def reset_on_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_reset_of_the_target_reaches_the_client_as_a_reset() -> None:
    async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset_on_close(writer.get_extra_info("socket"))
        writer.transport.abort()

    async with path_to(resetting) as path:
        with await path.client() as sock:
            await asyncio.get_running_loop().sock_sendall(sock, b"x")
            with pytest.raises(ConnectionResetError):
                await receive_all(sock)
        results = await both_done(path)
        assert {result.reason for result in results} == {"connection_reset"}


@pytest.mark.parametrize("talks", [True, False])
async def test_on_a_unix_socket_a_reset_reaches_a_client_that_goes_on_talking(tmp_path: Path, talks: bool) -> None:
    """It has no other reset; one that is silent gets an end, as it always was."""
    reset = asyncio.Event()

    async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"half of an ans")
        await reset.wait()
        reset_on_close(writer.get_extra_info("socket"))
        writer.transport.abort()

    loop = asyncio.get_running_loop()
    async with path_to(resetting) as path:
        entry = await loop.create_unix_server(lambda: Conn(path.enter), str(tmp_path / "s"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(tmp_path / "s"))
            await loop.sock_sendall(sock, b"x")
            assert await loop.sock_recv(sock, 100) == b"half of an ans"
            reset.set()
            while talks and len(path.results) < 2:
                with suppress(BrokenPipeError):
                    sock.send(b"more")
                await asyncio.sleep(0.005)
            if talks:
                with pytest.raises(ConnectionResetError):
                    await receive_all(sock)
            else:
                assert await receive_all(sock) == b""
        results = await both_done(path)
        entry.close()
    assert {result.reason for result in results} == {"connection_reset"}


@pytest.mark.parametrize("left", ["closes", "finishes"])
async def test_a_unix_client_that_leaves_while_it_is_reset(tmp_path: Path, left: str) -> None:
    async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset_on_close(writer.get_extra_info("socket"))
        writer.transport.abort()

    loop = asyncio.get_running_loop()
    async with path_to(resetting) as path:
        entry = await loop.create_unix_server(lambda: Conn(path.enter), str(tmp_path / "s"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(tmp_path / "s"))
            await loop.sock_sendall(sock, b"x")
            if left == "closes":
                sock.close()
            else:
                sock.shutdown(socket.SHUT_WR)
            assert len(await both_done(path)) == 2
        entry.close()


async def test_reset_of_the_client_reaches_the_target_as_a_reset() -> None:
    seen: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await reader.readexactly(1))
            await reader.read()
        except ConnectionError as error:
            seen.set_result(error)
        else:
            seen.set_result(None)

    async with path_to(waiting) as path:
        sock = await path.client()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"x")
        await loop.sock_recv(sock, 1)
        reset_on_close(sock)
        sock.close()
        async with asyncio.timeout(5):
            assert isinstance(await seen, ConnectionResetError)


async def test_lost_session_resets_both_sockets() -> None:
    seen: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await reader.readexactly(1))
            await reader.read()
        except ConnectionError as error:
            seen.set_result(error)
        else:
            seen.set_result(None)

    async with path_to(waiting) as path:
        loop = asyncio.get_running_loop()
        with await path.client() as sock:
            await loop.sock_sendall(sock, b"x")
            await loop.sock_recv(sock, 1)
            for session in path.pair.sessions:
                session.close()
            with pytest.raises(ConnectionResetError):
                await receive_all(sock)
        assert isinstance(await seen, ConnectionResetError)
        results = await both_done(path)
        assert {result.reason for result in results} == {"session_lost"}


async def test_reader_that_stops_holds_a_bounded_amount() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async with path_to(endless) as path:
        loop = asyncio.get_running_loop()
        with await path.client() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            await loop.sock_recv(sock, 1)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            held = path.pair.server.statistics().budget_used_bytes
            assert sum(result.bytes_to_socket for result in path.results) == 0
            # A window grows while the client's kernel takes what it is given: no further than to twice its 4 MiB.
            assert held <= 8 * 1024 * 1024
            assert sent < 16 * 1024 * 1024
            reset_on_close(sock)


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_reset_of_a_client_that_is_not_read_from_is_seen(
    monkeypatch: pytest.MonkeyPatch, half_closed: bool
) -> None:
    monkeypatch.setattr(splice_module, "WATCH_S", 0.1)
    ended = asyncio.Event()

    async def never_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()

    async with path_to(never_reading) as path:
        loop = asyncio.get_running_loop()
        with await path.client() as sock:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(sock, bytes(10 if half_closed else 64_000_000))
            if half_closed:
                sock.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.05)
            reset_on_close(sock)
        await eventually(lambda: path.results)
        ended.set()
        await both_done(path)


async def test_many_closes_from_each_side_leave_nothing() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1)
        if data == b"t":
            return  # the target closes first
        await reader.read()

    async with path_to(once) as path:
        loop = asyncio.get_running_loop()
        for who in (b"t", b"c") * 50:
            with await path.client() as sock:
                await loop.sock_sendall(sock, who)
                if who == b"t":
                    assert await receive_all(sock) == b""
        async with asyncio.timeout(10):
            await path.pair.agent.drained()
            await path.pair.server.drained()
        assert {result.reason for result in path.results} == {"closed"}


async def test_a_unix_client_that_finished_and_then_closed_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(splice_module, "WATCH_S", 0.1)
    ended = asyncio.Event()
    finished = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"last words"
        finished.set()
        await ended.wait()

    async with path_to(silent) as path:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Conn(path.enter), tmp_path / "entry")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(tmp_path / "entry"))
            await loop.sock_sendall(sock, b"last words")
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(5):
                await finished.wait()
            await asyncio.sleep(0.3)
            assert not path.results  # it may still want the answer
        await eventually(lambda: path.results)
        ended.set()
        await both_done(path)
        server.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_socket_that_ended_before_the_splice_delivers_what_it_said(tmp_path: Path, reset: bool) -> None:
    """asyncio's TLS closes at its peer's end; the stream may have been reset by then, too."""
    authority = Authority()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*authority.issue(hosts=["127.0.0.1"]).write(tmp_path, "server"))
    trust = ssl.create_default_context(cadata=authority.pem.decode())

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words")
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0, ssl=serving)
    results: list[SpliceResult] = []

    async def acceptor(incoming: IncomingStream) -> None:
        address = server.sockets[0].getsockname()
        _, conn = await asyncio.get_running_loop().create_connection(Conn, *address, ssl=trust)
        async with asyncio.timeout(5):
            await conn.lost()
        stream = incoming.accept()
        if reset:
            with pytest.raises(StreamReset):
                await stream.read()
        results.append(await splice(stream, conn.detach()))

    async with joined(acceptor) as pair:
        stream = await pair.server.open(TcpTarget("x", 1), deadline_s=5)
        if reset:
            stream.reset()
        else:
            assert [await stream.read(), await stream.read()] == [b"last words", b""]
        await eventually(lambda: results)
        stream.reset()
    server.close()


@pytest.mark.parametrize("callback", ["consumed", "receive_nowait"])
async def test_a_fault_of_ours_resets_both_ends_and_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    """The event loop and the session call the splice: neither can do anything with an exception but log it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    broken: list[Stream] = []
    whole = getattr(Stream, callback)

    def fail(self: Stream, *words: object) -> object:
        if self in broken:
            raise RuntimeError("a fault of ours")
        return whole(self, *words)

    async with path_to(echo) as path:
        loop = asyncio.get_running_loop()
        with capture_logs() as logs, await path.client() as doomed, await path.client() as other:
            await loop.sock_sendall(doomed, b"x")
            assert await loop.sock_recv(doomed, 1) == b"x"
            broken.append(path.streams[0])
            monkeypatch.setattr(Stream, callback, fail)
            await loop.sock_sendall(doomed, b"x")
            with pytest.raises(ConnectionResetError):
                await receive_all(doomed)
            await loop.sock_sendall(other, b"z")
            assert await loop.sock_recv(other, 1) == b"z"
            results = await both_done(path)
        assert [result.reason for result in results] == ["internal", "internal"]
        assert logs[0]["event"] == "splice failed"
