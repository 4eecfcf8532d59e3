"""Listeners: addresses, unix sockets that are stale or taken, limits, strangers before and after the TLS handshake."""

from __future__ import annotations

import asyncio
import datetime as dt
import resource
import socket
import ssl
import stat
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

import tunnel.aio.sockets.listener as listener_module
from tests.support.pki import Authority, Issued
from tests.support.waits import eventually
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.sockets.binding import UnixPath, bind_unix
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.handshake_fault import Cause
from tunnel.aio.sockets.listener import LINGER_S, Limits, Listener, ListenFailed
from tunnel.aio.sockets.tls_context import server_context
from tunnel.core.wire.errors import StreamReset

URI = "spiffe://longline/user/ann"


async def echo(conn: Conn) -> None:
    while data := await conn.read():
        await conn.write(data)


async def whoami(conn: Conn) -> None:
    await conn.read()
    await conn.write((conn.tls_peer_spiffe or "nobody").encode())


@asynccontextmanager
async def listening(handler: object = echo, limits: Limits | None = None) -> AsyncIterator[Listener]:
    listener = Listener("test", handler, limits)  # type: ignore[arg-type]
    try:
        yield listener
    finally:
        await listener.aclose()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def server_tls(authority: Authority) -> ssl.SSLContext:
    server = authority.issue(hosts=["127.0.0.1"])
    return server_context(
        ServerTls(certificate=server.certificate_pem, key=server.key_pem, client_ca=authority.pem).load()
    )


def client_tls(authority: Authority, folder: Path, client: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if client is not None:
        context.load_cert_chain(*client.write(folder, "client"))
    return context


async def ask(port: int, tls: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        writer.write(b"?")
        return await reader.read()
    finally:
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()


# TCP


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_every_family_is_served(address: str) -> None:
    async with listening() as listener:
        await listener.listen_tcp(address)
        host = address.rpartition(":")[0].strip("[]")
        family = socket.AF_INET6 if host == "::1" else socket.AF_INET
        reader, writer = await asyncio.open_connection(host, listener.ports[0], family=family)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1", "is not host:port"),
        ("127.0.0.1:http", "is not host:port"),
        ("127.0.0.1:70000", "is not host:port, with a port up to 65535"),
        ("192.0.2.1:0", "cannot assign requested address"),
        ("no-such-host.invalid:0", "cannot listen on no-such-host.invalid:0: "),
    ],
)
async def test_what_cannot_be_bound_is_told(address: str, says: str) -> None:
    async with listening() as listener:
        with pytest.raises(ListenFailed) as fault:
            await listener.listen_tcp(address)
        assert says in str(fault.value)
        assert "Errno" not in str(fault.value)


async def test_a_port_in_use_is_told() -> None:
    async with listening() as listener:
        await listener.listen_tcp("127.0.0.1:0")
        with pytest.raises(ListenFailed, match="address already in use"):
            await listener.listen_tcp(f"127.0.0.1:{listener.ports[0]}")


async def test_connections_above_the_limit_are_reset() -> None:
    async with listening(limits=Limits(connections=2)) as listener:
        await listener.listen_tcp("127.0.0.1:0")
        kept = [await asyncio.open_connection("127.0.0.1", listener.ports[0]) for _ in range(2)]
        await eventually(lambda: listener.connections == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        kept[0][1].close()
        await eventually(lambda: listener.connections == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        writer.write(b"in again")
        assert await reader.read(100) == b"in again"
        for each in (writer, kept[1][1]):
            each.close()


@pytest.mark.parametrize("secured", [False, True])
async def test_near_the_limit_of_files_connections_are_reset(
    server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, secured: bool
) -> None:
    """At the limit itself uvloop would accept and close them: an end that looks clean."""
    monkeypatch.setattr(listener_module, "RESERVED_FILES", 20)
    loop = asyncio.get_running_loop()
    async with listening() as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls if secured else None)
        address = ("127.0.0.1", listener.ports[0])
        clients = [socket.socket() for _ in range(10)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in clients) + 25, hard))
        try:
            for sock in clients:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(5):
                    await loop.sock_recv(clients[-1], 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for sock in clients:
                sock.close()
        await eventually(lambda: not listener.connections)
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b"in again")
            if not secured:
                assert await loop.sock_recv(sock, 100) == b"in again"
        await eventually(lambda: not listener.connections)


async def test_the_last_word_survives_what_the_client_still_sends() -> None:
    async def refuse(conn: Conn) -> None:
        await conn.read(1)
        await conn.write(b"no")

    async with listening(refuse) as listener:
        await listener.listen_tcp("127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        writer.write(bytes(500_000))
        assert await reader.read() == b"no"
        writer.close()
        await eventually(lambda: listener.connections == 0, LINGER_S)


async def test_a_client_that_stays_is_closed_after_a_while() -> None:
    async def leave(conn: Conn) -> None:
        return

    async with listening(leave) as listener:
        await listener.listen_tcp("127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        assert await reader.read() == b""
        await eventually(lambda: listener.connections == 0, LINGER_S + 2)
        writer.close()


async def test_closing_ends_what_runs() -> None:
    async with listening() as listener:
        await listener.listen_tcp("127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        await eventually(lambda: listener.connections == 1)
        await listener.aclose()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("127.0.0.1", listener.ports[0])


async def test_a_failed_connection_is_no_fault_of_the_handler_and_no_clean_end() -> None:
    async def fail(conn: Conn) -> None:
        raise StreamReset("gone")

    async with listening(fail) as listener:
        await listener.listen_tcp("127.0.0.1:0")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


def fetch(port: int, tls: ssl.SSLContext | None) -> bytes:
    """All that a server says, by a client that is not the event loop's, whose TLS may drop what came before an end."""
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        sock = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        with sock:
            received = bytearray()
            while data := sock.recv(1 << 16):
                received += data
            return bytes(received)


@pytest.mark.parametrize("secured", [False, True])
async def test_a_slow_reader_gets_all_of_an_answer_whose_connection_was_closed_behind_it(
    authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path, secured: bool
) -> None:
    """Until the very end of it the socket would have been reset; and all is far more than the kernel takes at once."""
    answer = b"x" * 8 * 1024 * 1024
    linger: list[bytes] = []

    async def serve(conn: Conn) -> None:
        sock = conn.transport.get_extra_info("socket")
        linger.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        writing = asyncio.create_task(conn.write(answer))  # noqa: TID251 - closed while it still waits
        await asyncio.sleep(0)
        writing.cancel()
        await conn.aclose()

    async with listening(serve) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls if secured else None)
        tls = client_tls(authority, tmp_path) if secured else None
        assert await asyncio.to_thread(fetch, listener.ports[0], tls) == answer
    assert linger == [struct.pack("ii", 1, 0)]


# Unix sockets


async def test_a_unix_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "connect.sock"
    async with listening() as listener:
        await listener.listen_unix(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"
        writer.close()
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "connect.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with listening() as listener:
        await listener.listen_unix(path)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"
        writer.close()


async def test_a_unix_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "connect.sock"
    async with listening() as first, listening() as second:
        await first.listen_unix(path)
        with pytest.raises(ListenFailed, match="another process listens there"):
            await second.listen_unix(path)
        await second.aclose()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"still there")
        assert await reader.read(100) == b"still there"
        writer.close()


async def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "connect.sock"
    path.write_text("precious")
    async with listening() as listener:
        with pytest.raises(ListenFailed, match="something other than a socket"):
            await listener.listen_unix(path)
        with pytest.raises(ListenFailed, match="no such file or directory"):
            await listener.listen_unix(tmp_path / "missing" / "connect.sock")
    assert path.read_text() == "precious"


async def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "connect.sock"
    async with listening() as first:
        await first.listen_unix(path)
        path.unlink()
        async with listening() as second:
            await second.listen_unix(path)
            await first.aclose()
            assert path.exists()


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_unix_socket_that_nobody_wants_any_more_is_closed_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancels: int
) -> None:
    """A daemon that stops at once cancels what it brings up twice, and a thread that binds cannot be called off."""
    path, began, go = tmp_path / "admin.sock", threading.Event(), threading.Event()
    bound: list[socket.socket] = []

    def slowly(*arguments: object) -> tuple[socket.socket, UnixPath]:
        began.set()
        assert go.wait(10)
        made = bind_unix(path)
        bound.append(made[0])
        return made

    monkeypatch.setattr(listener_module, "bind_unix", slowly)
    async with listening() as listener:
        opening = asyncio.create_task(listener.listen_unix(path))  # noqa: TID251 - what ends it is the test's matter
        assert await asyncio.to_thread(began.wait, 10)
        for _ in range(cancels):
            opening.cancel()
            await asyncio.sleep(0)
        go.set()
        await asyncio.wait({opening})
        assert opening.cancelled()
        await eventually(lambda: bound and bound[0].fileno() == -1)
        await eventually(lambda: not path.exists())


# TLS


async def test_a_client_certificate_is_read(authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    async with listening(whoami) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        assert await ask(listener.ports[0], client_tls(authority, tmp_path)) == b"nobody"
        ann = authority.issue(uris=[URI])
        assert await ask(listener.ports[0], client_tls(authority, tmp_path, ann)) == URI.encode()
        two_names = authority.issue(uris=[URI, "spiffe://longline/user/bob"])
        assert await ask(listener.ports[0], client_tls(authority, tmp_path, two_names)) == b"nobody"
        as_dns_name = authority.issue(hosts=[URI.replace("/", "-").replace(":", "-")])
        assert await ask(listener.ports[0], client_tls(authority, tmp_path, as_dns_name)) == b"nobody"


async def test_a_client_certificate_says_which_it_is_and_until_when(
    authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    async def which(conn: Conn) -> None:
        await conn.read()
        uri, serial, until, since = conn.tls_peer
        await conn.write(f"{uri} {serial} {since or ''} {until}".encode())

    async with listening(which) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        ann = authority.issue(uris=[URI])
        told = (await ask(listener.ports[0], client_tls(authority, tmp_path, ann))).decode()
        uri, serial, *moments = told.split(" ", 2)
        begin, end = ann.certificate.not_valid_before_utc, ann.certificate.not_valid_after_utc
        assert moments == [f"{begin} {end}"]
        assert (uri, int(serial, 16)) == (URI, ann.certificate.serial_number)
        assert serial == serial.lower()
        assert await ask(listener.ports[0], client_tls(authority, tmp_path)) == b"None   None"


async def test_a_foreign_certificate_is_refused(
    server_tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority("another CA").issue(uris=[URI])
    async with listening(whoami) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(listener.ports[0], client_tls(authority, tmp_path, foreign))
        assert await ask(listener.ports[0], client_tls(authority, tmp_path)) == b"nobody"


async def test_failed_handshakes_are_counted_by_cause_and_told_once_for_each_address(
    server_tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    failed: Counter[Cause] = Counter()
    listener = Listener("test", whoami, Limits(handshake_timeout_s=0.3), handshakes_failed=failed)
    demanding = Listener("agents", whoami, handshakes_failed=failed)
    day = dt.timedelta(days=1)

    async def refused(client: Issued | None, at: Listener = listener) -> None:
        answer = b""
        with suppress(ssl.SSLError, ConnectionError):
            answer = await ask(at.ports[0], client_tls(authority, tmp_path, client))
        assert answer == b""

    async def say(words: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
        writer.write(words)
        if not words:
            writer.write_eof()
        await reader.read()
        writer.close()

    try:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        with capture_logs() as lines:
            for _ in range(2):
                await refused(authority.issue(uris=[URI], starts_in=-2 * day, ends_in=-day))
            await refused(authority.issue(uris=[URI], starts_in=day, ends_in=2 * day))
            await refused(Authority("another CA").issue(uris=[URI]))
            await refused(authority.issue(uris=[URI], usage=[ExtendedKeyUsageOID.SERVER_AUTH]))
            with pytest.raises(ssl.SSLCertVerificationError):
                # Not asyncio's client, which closes without the alert.
                await asyncio.to_thread(fetch, listener.ports[0], client_tls(Authority("another CA"), tmp_path))
            await say(b"GET / HTTP/1.1\r\n\r\n")
            await say(b"")
            silent, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
            assert await silent.read() == b""
            writer.close()
            server_tls.verify_mode = ssl.CERT_REQUIRED
            await demanding.listen_tcp("127.0.0.1:0", server_tls)
            await refused(None, at=demanding)
            await eventually(lambda: failed.total() == 10)
        assert failed == {
            Cause.EXPIRED: 2, Cause.NOT_YET_VALID: 1, Cause.UNKNOWN_AUTHORITY: 1, Cause.BAD_CERTIFICATE: 1,
            Cause.OURS_REFUSED: 1, Cause.PROTOCOL: 1, Cause.LEFT: 1, Cause.TIMED_OUT: 1, Cause.NO_CERTIFICATE: 1,
        }  # fmt: skip
        warned = [line for line in lines if line["log_level"] == "warning"]
        assert [line["code"] for line in warned] == ["LL2021"] * 7
        assert {line["address"] for line in lines} == {"127.0.0.1"}
        assert warned[0] == warned[1], "equal lines are folded"
        assert "this machine's clock says" in warned[0]["clock"]
    finally:
        server_tls.verify_mode = ssl.CERT_OPTIONAL
        await listener.aclose()
        await demanding.aclose()


async def test_silent_strangers_are_limited_and_leave_room(
    authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    limits = Limits(handshakes_per_address=10, handshake_timeout_s=1.0)
    async with listening(whoami, limits) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        strangers = [await asyncio.open_connection("127.0.0.1", listener.ports[0]) for _ in range(30)]
        for reader, _ in strangers[10:]:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        # Another address is not concerned, and after the time-out nor is this one.
        loop = asyncio.get_running_loop()
        other, _ = await loop.create_connection(
            asyncio.Protocol,
            "127.0.0.1",
            listener.ports[0],
            local_addr=("127.0.0.2", 0),
            ssl=client_tls(authority, tmp_path),
            server_hostname="127.0.0.1",
        )
        other.close()
        for reader, _ in strangers[:10]:
            assert await reader.read() == b""
        assert await ask(listener.ports[0], client_tls(authority, tmp_path)) == b"nobody"
        for _, writer in strangers:
            writer.close()


async def test_counts_are_taken_back(authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    limits = Limits(per_address=2, handshakes_per_address=1)
    async with listening(whoami, limits) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0])
            writer.write(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
            writer.close()
            await eventually(lambda: not listener._by_address and not listener._handshakes)
        for _ in range(5):
            assert await ask(listener.ports[0], client_tls(authority, tmp_path)) == b"nobody"
            await eventually(lambda: not listener._by_address and not listener._handshakes)


async def test_one_address_cannot_take_all(authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    async with listening(whoami, Limits(per_address=2)) as listener:
        await listener.listen_tcp("127.0.0.1:0", server_tls)
        tls = client_tls(authority, tmp_path)
        kept = [await asyncio.open_connection("127.0.0.1", listener.ports[0], ssl=tls) for _ in range(2)]
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", listener.ports[0], ssl=tls)
        for _, writer in kept:
            writer.close()
            with suppress(ssl.SSLError):  # asyncio's client does not expect the answer after its own end
                await writer.wait_closed()
