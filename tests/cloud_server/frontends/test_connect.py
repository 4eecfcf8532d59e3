"""CONNECT over a unix socket and over TLS: names, answers, bytes glued to heads, clients that leave, and attacks."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cloud_server.frontends import connect
from cloud_server.frontends.connect import ConnectFrontend
from tests.cloud_server.frontends.site import BANNER, Site, site
from tests.support.doors import who
from tests.support.pki import Authority
from tests.support.tls_client import TlsClient
from tests.support.waits import eventually, scaled_s
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tls_context import server_context
from tunnel.core.wire.target import TcpTarget

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
KUBE_APISERVER = "CONNECT {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ANN = "spiffe://longline/user/ann"
SECRET = "s3cret-t0ken"


class Proxy:
    """The front end on both of its sockets."""

    def __init__(self, site: Site, unix: Path, port: int, authority: Authority) -> None:
        self.site = site
        self.unix = unix
        self.port = port
        self.authority = authority
        self.sockets: list[socket.socket] = []

    async def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        self.sockets.append(sock)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(self.unix))
        return sock

    async def say(self, head: bytes | str) -> socket.socket:
        sock = await self.connect()
        await asyncio.get_running_loop().sock_sendall(sock, head.encode("latin-1") if isinstance(head, str) else head)
        return sock

    async def ask(self, head: bytes | str) -> bytes:
        """Everything that comes back, up to the end."""
        return await receive_all(await self.say(head))

    async def tunnel(self, name: str, glued: bytes = b"") -> socket.socket:
        sock = await self.say(KUBE_APISERVER.format(name).encode() + glued)
        assert await receive_exactly(sock, len(ESTABLISHED)) == ESTABLISHED
        return sock

    async def ask_tls(self, head: str, folder: Path | None = None, uri: str = "") -> bytes:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        if folder is not None:
            context.load_cert_chain(*self.authority.issue(uris=[uri]).write(folder, "client"))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        writer.write(head.encode())
        try:
            return await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.transport.abort()


async def receive_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
        received += data
    return bytes(received)


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count and (data := await asyncio.get_running_loop().sock_recv(sock, count - len(received))):
        received += data
    return bytes(received)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    server = authority.issue(hosts=["127.0.0.1"])
    return server_context(
        ServerTls(certificate=server.certificate_pem, key=server.key_pem, client_ca=authority.pem).load()
    )


@asynccontextmanager
async def proxy(
    folder: Path, tls: ssl.SSLContext, authority: Authority, deadline_s: float = 5.0
) -> AsyncIterator[Proxy]:
    async with site() as far:
        frontend = ConnectFrontend(far.doors.door, who({SECRET: "bob"}), far.doors.logins, deadline_s=deadline_s)
        unix, tcp = Listener("unix", frontend.handle_unix), Listener("tls", frontend.handle_tls)
        await unix.listen_unix(folder / "connect.sock")
        await tcp.listen_tcp("127.0.0.1:0", tls)
        made = Proxy(far, folder / "connect.sock", tcp.ports[0], authority)
        try:
            yield made
        finally:
            for sock in made.sockets:
                sock.close()
            await unix.aclose()
            await tcp.aclose()


@pytest.fixture
async def front(tmp_path: Path, tls: ssl.SSLContext, authority: Authority) -> AsyncIterator[Proxy]:
    async with proxy(tmp_path, tls, authority) as made:
        yield made


# Tunnels


async def test_the_answer_is_exactly_what_kube_apiserver_takes(front: Proxy) -> None:
    sock = await front.say(KUBE_APISERVER.format("box-7:7"))
    assert await asyncio.get_running_loop().sock_recv(sock, 4096) == ESTABLISHED
    asked = front.site.asked[0]
    assert (asked.agent, asked.target) == ("box-7", TcpTarget("localhost", 7))
    assert (asked.principal, asked.frontend) == (f"uid:{os.getuid()}", "connect")


async def test_a_host_behind_the_agent(front: Proxy) -> None:
    await front.tunnel("10.1.0.9.box-7.longline:7")
    assert front.site.asked[0].target == TcpTarget("10.1.0.9", 7)


async def test_half_close_echo(front: Proxy) -> None:
    sock = await front.tunnel("box-7:7")
    blob = os.urandom(200_000)
    await asyncio.get_running_loop().sock_sendall(sock, blob)
    sock.shutdown(socket.SHUT_WR)
    assert await receive_all(sock) == blob


async def test_half_close_echo_over_tls(front: Proxy, tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=front.authority.pem.decode())
    context.load_cert_chain(*front.authority.issue(uris=[ANN]).write(tmp_path, "client"))
    loop = asyncio.get_running_loop()
    blob = os.urandom(1_000_000)
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", front.port))
        client = TlsClient(sock, context)
        await client.handshake()
        await client.send(KUBE_APISERVER.format("box-7:7").encode())
        assert await client.receive() == ESTABLISHED
        await client.send(blob)
        await client.finish()
        assert await client.receive_all() == blob


async def test_a_cut_over_tls_is_no_end(front: Proxy, tmp_path: Path) -> None:
    """FIN without close_notify: an end at the box would say that all bytes arrived."""
    context = ssl.create_default_context(cadata=front.authority.pem.decode())
    context.load_cert_chain(*front.authority.issue(uris=[ANN]).write(tmp_path, "client"))
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", front.port))
        client = TlsClient(sock, context)
        await client.handshake()
        await client.send(KUBE_APISERVER.format("box-7:7").encode())
        assert await client.receive() == ESTABLISHED
        await client.send(b"half a mess")
        assert await client.receive() == b"half a mess"
    await eventually(lambda: front.site.records.of("end"))
    assert front.site.records.of("end")[0]["reason"] == "connection_reset"


async def test_bytes_glued_to_the_head_come_first(front: Proxy) -> None:
    for size in (1, 100, 3000, 60_000):
        glued = os.urandom(size)
        sock = await front.tunnel("box-7:7", glued)
        await asyncio.get_running_loop().sock_sendall(sock, b"then this")
        sock.shutdown(socket.SHUT_WR)
        assert await receive_all(sock) == glued + b"then this"


async def test_a_client_may_send_all_and_finish_before_the_answer(front: Proxy) -> None:
    blob = os.urandom(20_000)
    sock = await front.say(KUBE_APISERVER.format("box-7:7").encode() + blob)
    sock.shutdown(socket.SHUT_WR)
    assert await receive_all(sock) == ESTABLISHED + blob


async def test_a_server_that_speaks_first_is_never_glued_to_the_answer(front: Proxy) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(30):
        sock = await front.say(KUBE_APISERVER.format("box-7:21"))
        # One big read, as Go's bufio makes it: kube-apiserver gives up when it holds more than the answer.
        assert await loop.sock_recv(sock, 65536) == ESTABLISHED
        assert await receive_exactly(sock, len(BANNER)) == BANNER
        sock.close()


async def test_a_client_that_never_reads_its_answer_still_gets_the_banner(front: Proxy) -> None:
    sock = await front.say(KUBE_APISERVER.format("box-7:21"))
    await eventually(lambda: front.site.pair.agent.core.stream_count)
    await asyncio.sleep(scaled_s(0.3))
    assert await receive_exactly(sock, len(ESTABLISHED + BANNER)) == ESTABLISHED + BANNER


# Refusals


@pytest.mark.parametrize(
    ("name", "status_line"),
    [
        ("box-7:1", b"HTTP/1.1 502 LL4201: 127.0.0.1:1: connection refused"),
        ("box-7:2", b"HTTP/1.1 403 LL4101: not"),
        ("box-8:22", b"HTTP/1.1 404 LL4003: no agent for box-8, did you mean box-7? "),
        (
            "example.com:443",
            b"HTTP/1.1 404 LL4003: no agent for example.com: it is no agent, node, pod, service or [[route]] ",
        ),
        ("box-7", b"HTTP/1.1 400 LL4004: no port in the name; write <agent>:<port>, <agent>:<service>, or"),
    ],
)
async def test_the_reason_is_in_the_reason_phrase(front: Proxy, name: str, status_line: bytes) -> None:
    answer = await front.ask(KUBE_APISERVER.format(name))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(status_line)
    assert lines[0].isascii()
    assert all(0x20 <= byte < 0x7F for byte in lines[0])
    headers = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in lines[1:]}
    assert headers.keys() >= {b"connection", b"content-length", b"content-type"}
    assert headers[b"connection"] == b"close"
    assert b"x-injected" not in headers
    assert len(body) == int(headers[b"content-length"])


async def test_silence_is_answered_at_the_deadline(tmp_path: Path, tls: ssl.SSLContext, authority: Authority) -> None:
    async with proxy(tmp_path, tls, authority, deadline_s=0.3) as front:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        assert (await front.ask(KUBE_APISERVER.format("box-7:3"))).startswith(b"HTTP/1.1 504 ")
        assert loop.time() - start_s < scaled_s(1.5)
        await eventually(lambda: front.site.given_up == 1)


async def test_a_suspended_session_is_answered_at_the_deadline(
    tmp_path: Path, tls: ssl.SSLContext, authority: Authority
) -> None:
    async with proxy(tmp_path, tls, authority, deadline_s=0.3) as front:
        await front.site.pair.cut()
        answer = await front.ask(KUBE_APISERVER.format("box-7:7"))
        assert answer.split()[1] in (b"503", b"504")


async def test_the_target_resets(front: Proxy) -> None:
    sock = await front.tunnel("box-7:25")
    await asyncio.get_running_loop().sock_sendall(sock, b"x")
    # The kernel has no reset for unix sockets; that it was none of a clean end is in the record.
    with suppress(ConnectionResetError):
        assert await receive_all(sock) == b""
    await eventually(lambda: front.site.records.of("end"))
    assert front.site.records.of("end")[0]["reason"] == "connection_reset"


# Clients that leave


async def test_a_client_that_leaves_cancels_the_dial(front: Proxy) -> None:
    for _ in range(20):
        (await front.say(KUBE_APISERVER.format("box-7:3"))).close()
    await eventually(lambda: len(front.site.asked) == 20)
    await eventually(lambda: front.site.pair.agent.core.stream_count == 0 and front.site.dialling == 0)


async def test_a_client_that_finishes_and_then_leaves_cancels_the_dial(front: Proxy) -> None:
    sock = await front.say(KUBE_APISERVER.format("box-7:3"))
    sock.shutdown(socket.SHUT_WR)
    await eventually(lambda: front.site.dialling == 1)
    sock.close()
    await eventually(lambda: front.site.given_up == 1)


async def test_a_client_that_leaves_over_tls_cancels_the_dial(front: Proxy, tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=front.authority.pem.decode())
    context.load_cert_chain(*front.authority.issue(uris=[ANN]).write(tmp_path, "client"))
    for count, leave in enumerate(("close", "abort", "reset"), start=1):
        _, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=context)
        writer.write(KUBE_APISERVER.format("box-7:3").encode())
        await eventually(lambda: front.site.dialling == 1)
        if leave == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if leave == "close":
            writer.close()
        else:
            writer.transport.abort()
        await eventually(lambda: front.site.given_up == count)  # noqa: B023 - awaited here


async def test_a_client_that_leaves_before_its_head_is_whole(front: Proxy) -> None:
    (await front.say("CONN")).close()
    (await front.connect()).close()
    await front.tunnel("box-7:7")
    assert len(front.site.asked) == 1


# Who asks


@pytest.mark.parametrize(
    ("credentials", "principal"),
    [
        (f"Bearer {SECRET}", "bob"),
        (f"bearer  {SECRET}", "bob"),
        ("Basic " + base64.b64encode(f"anyone:{SECRET}".encode()).decode(), "bob"),
        ("Basic " + base64.b64encode(f"{SECRET}:".encode()).decode(), "bob"),
    ],
)
async def test_a_token_over_tls(front: Proxy, credentials: str, principal: str) -> None:
    head = f"CONNECT box-7:7 HTTP/1.1\r\nHost: box-7:7\r\nProxy-Authorization: {credentials}\r\n\r\n"
    assert await front.ask_tls(head) == ESTABLISHED
    assert front.site.asked[0].principal == principal


async def test_a_certificate_over_tls(front: Proxy, tmp_path: Path) -> None:
    assert await front.ask_tls(KUBE_APISERVER.format("box-7:7"), tmp_path, ANN) == ESTABLISHED
    assert front.site.asked[0].principal == "ann"


@pytest.mark.parametrize(
    "credentials",
    [
        "",
        "Bearer ",
        "Bearer wrong",
        f"Digest {SECRET}",
        SECRET,
        "Basic !!!!",
        "Basic \xe4",
        "Basic " + base64.b64encode(b"\xff\xfe:\xfd").decode(),
        "Basic " + base64.b64encode(b"bob:wrong").decode(),
        "Basic " + base64.b64encode(b":").decode(),
    ],
)
async def test_nobody_we_know(front: Proxy, credentials: str) -> None:
    header = f"Proxy-Authorization: {credentials}\r\n" if credentials else ""
    with capture_logs() as logs:
        answer = await front.ask_tls(f"CONNECT box-7:7 HTTP/1.1\r\nHost: box-7:7\r\n{header}\r\n")
    assert answer.startswith(b"HTTP/1.1 407 ")
    assert b"proxy-authenticate: basic realm=" in answer.lower()
    assert b"proxy-authenticate: bearer" in answer.lower()
    assert b"connection: close" in answer.lower()
    assert front.site.asked == []
    assert SECRET not in str(logs)
    (record,) = front.site.records
    assert (record["event"], record["frontend"], record["peer"]) == ("login_refused", "connect", "127.0.0.1")
    assert SECRET not in str(record)
    assert front.site.doors.logins.counts == {"connect": 1}


async def test_a_certificate_of_another_role_is_nobody(front: Proxy, tmp_path: Path) -> None:
    for uri in ("spiffe://longline/agent/ann", "spiffe://longline/user/ann/x", "spiffe://other/user/ann"):
        assert (await front.ask_tls(KUBE_APISERVER.format("box-7:7"), tmp_path, uri)).startswith(b"HTTP/1.1 407 ")
    assert front.site.asked == []


# Attacks


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("GET http://box-7/ HTTP/1.1\r\nHost: box-7\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405),
        ("connect box-7:7 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECTX box-7:7 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\rX-Evil: y\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\x00y\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nNo colon\r\n\r\n", 400),
        ("CONNECT box-7:7\r\n\r\n", 400),
        ("CONNECT  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT box-7:7 x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT box-7:7\x0b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("CONNECT b\xf6x:7 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 4000 + "\r\n", 431),
        ("CONNECT box-7:7 HTTP/1.1\r\nHost: x\r\nX: " + "y" * 20_000, 431),
        ("CONNECT " + "a" * 20_000, 431),
        ("CONNECT " + "a" * 5000 + ":7 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_odd_requests(front: Proxy, head: str, status: int) -> None:
    answer = await front.ask(head)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert front.site.asked == []


async def test_a_second_request_behind_a_refused_one_is_not_served(front: Proxy) -> None:
    answer = await front.ask(KUBE_APISERVER.format("box-7:1") + KUBE_APISERVER.format("box-7:7"))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert len(front.site.asked) == 1


async def test_a_slow_head_is_given_up(front: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "HEAD_TIMEOUT_S", 0.3)
    for begun in ("", "CONNECT box-7:7 HTTP/1.1\r\nHost:"):
        answer = await front.ask(begun)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    dripping = await front.connect()
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            await loop.sock_sendall(dripping, b"A")
            await asyncio.sleep(0.05)
    assert loop.time() - start_s < scaled_s(5)
    assert front.site.asked == []


# The record


async def test_two_records_for_each_stream_and_one_for_each_refusal(front: Proxy) -> None:
    sock = await front.tunnel("box-7:7", b"12345")
    sock.shutdown(socket.SHUT_WR)
    await receive_all(sock)
    await eventually(lambda: front.site.records.of("end"))
    await front.ask(KUBE_APISERVER.format("box-7:1"))
    opened, ended, refused = front.site.records
    assert {key: opened[key] for key in ("event", "frontend", "kind", "who", "agent", "target", "resolved")} == {
        "event": "open",
        "frontend": "connect",
        "kind": "local_process",
        "who": f"uid:{os.getuid()}",
        "agent": "box-7",
        "target": "localhost:7",
        "resolved": "127.0.0.1:7",
    }
    assert opened["proof"] == f"uid:{os.getuid()} pid:{os.getpid()}"
    assert (ended["bytes_to_agent"], ended["bytes_from_agent"], ended["reason"]) == (5, 5, "closed")
    assert ended["trace_id"] == opened["trace_id"] != refused["trace_id"]
    assert (refused["event"], refused["reason"], refused["code"]) == ("refused", "refused", "LL4201")
    assert len(front.site.doors.live) == 0


async def test_a_thousand_opens_leave_nothing(front: Proxy) -> None:
    async def one(name: str) -> None:
        sock = await front.tunnel(name, b"x")
        if name.endswith("7"):
            sock.shutdown(socket.SHUT_WR)
            assert await receive_all(sock) == b"x"
        sock.close()

    for _ in range(25):
        await asyncio.gather(*(one("box-7:7") for _ in range(20)), *(one("box-7:21") for _ in range(20)))
    await eventually(lambda: front.site.pair.server.core.stream_count == 0)
    await eventually(lambda: front.site.pair.agent.core.stream_count == 0)
