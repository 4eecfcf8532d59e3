"""What goes on to a kubelet and what does not, and kubelets that misbehave. The kubelets here are scripts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloud_server.frontends.fleet import kubelet as kubelet_module
from tests.support.doors import Nobody
from tests.support.fleet import TOKEN, FakeRegistry, Fleet, box, pod_list, running_fleet
from tests.support.waits import eventually, scaled_s
from tunnel.aio.http.http1 import ClientConnection, HeaderItems, Request, ServerConnection
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.wire.errors import StreamError

pytestmark = pytest.mark.timeout(30)
EXEC = "/api/v1/namespaces/default/pods/box-7/exec?command=a%20b&command=c&stdin=true&stdout=1&tty=false&container=host"
UPGRADE = [
    ("host", "fleet"),
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "k"),
    ("sec-websocket-version", "13"),
    ("authorization", f"Bearer {TOKEN}"),
    ("cookie", "c"),
    ("origin", "https://evil.example"),
    ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
]
REFUSAL = b'{"kind":"Status","message":"not here","reason":"Forbidden"}'


class Scripted:
    """A kubelet that lists one pod and does with any other request what a test says."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gone = asyncio.Event()

    async def serve(self, duplex: Duplex) -> None:
        http = ServerConnection(duplex)
        try:
            request = await http.next_request()
            assert request is not None
            if request.target == "/pods":
                await http.respond(200, (), pod_list("box-7", "host"))
                await duplex.aclose()
                return
            self.requests.append(request)
            await self.script(http, duplex)
        except StreamError:
            self.gone.set()

    async def script(self, http: ServerConnection, duplex: Duplex) -> None:
        raise NotImplementedError


class Echo(Scripted):
    """Upgrades, speaks first, then echoes; half-closes behind the client's end."""

    async def script(self, http: ServerConnection, duplex: Duplex) -> None:
        headers = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io")]
        early = await http.upgrade([*headers, ("set-cookie", "no")])
        await duplex.write(b"first," + early)
        while data := await duplex.read():
            await duplex.write(data)
        await duplex.write(b",end")
        await duplex.write_eof()


class Silent(Scripted):
    """Takes a request and never answers."""

    async def script(self, http: ServerConnection, duplex: Duplex) -> None:
        await http.wait_client_gone()
        self.gone.set()


class Raw(Scripted):
    """Answers with given bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw

    async def script(self, http: ServerConnection, duplex: Duplex) -> None:
        await duplex.write(self.raw)
        await duplex.write_eof()


@asynccontextmanager
async def _fleet(folder: Path, kubelet: Scripted) -> AsyncIterator[Fleet]:
    async with running_fleet(folder, FakeRegistry(box("box-7")), {"box-7": kubelet.serve}) as fleet:
        link = fleet.opener.pairs["box-7"].server
        await eventually(lambda: fleet.opener.opened and not link.statistics().streams)
        yield fleet


@asynccontextmanager
async def _client(fleet: Fleet) -> AsyncIterator[tuple[Conn, ClientConnection]]:
    context = ssl.create_default_context(cadata=fleet.ca_pem.decode())
    _, conn = await asyncio.get_running_loop().create_connection(Conn, "127.0.0.1", fleet.port, ssl=context)
    try:
        async with asyncio.timeout(scaled_s(15)):
            yield conn, ClientConnection(conn)
    finally:
        await conn.aclose()
        await conn.lost()


async def _ask(fleet: Fleet, target: str, headers: HeaderItems = UPGRADE) -> tuple[int, bytes]:
    async with _client(fleet) as (_, http):
        response = await http.request("GET", target, headers)
        return response.status, await http.read_body(1 << 20)


async def test_an_upgrade_passes_what_it_needs_and_no_credentials(tmp_path: Path) -> None:
    kubelet = Echo()
    async with _fleet(tmp_path, kubelet) as fleet, _client(fleet) as (conn, http):
        response = await http.request("GET", EXEC, UPGRADE)
        assert response.status == 101
        assert response.headers.get("sec-websocket-protocol") == "v5.channel.k8s.io"
        assert response.headers.get("set-cookie") is None
        received = http.trailing_data()
        await conn.write(b"hello")
        while not received.endswith(b"hello"):
            received += await conn.read()
        assert received == b"first,hello"
    (request,) = kubelet.requests
    assert request.target == "/exec/default/box-7/host?input=1&output=1&command=a+b&command=c"
    assert dict(request.headers) == {
        "host": "kubelet",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "k",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "v5.channel.k8s.io",
    }


async def test_every_exec_leaves_a_record_refused_ones_too(tmp_path: Path) -> None:
    async with _fleet(tmp_path, Echo()) as fleet:
        records = fleet.doors.records
        long = EXEC.replace("command=c", "command=" + "c" * 2000)
        async with _client(fleet) as (conn, http):
            assert (await http.request("GET", long, UPGRADE)).status == 101
            await conn.write(b"hello")
            assert [record["event"] for record in records.of("open", "end")] == ["open"]
        await eventually(lambda: records.of("end"))
        assert (await _ask(fleet, EXEC.replace("box-7", "box-8")))[0] == 404
        assert (await _ask(fleet, EXEC.replace("container=host", "container=none")))[0] == 400
        assert len(fleet.doors.live) == 0
    (done,), (no_pod, no_container) = records.of("open"), records.of("refused")
    assert done["command"] == ["a b", "c" * 1021 + "... [979 bytes more]"]
    assert (done["action"], done["agent"], done["pod"], done["container"]) == ("exec", "box-7", "default/box-7", "host")
    assert (no_pod["agent"], no_pod["pod"], no_pod["command"]) == ("", "default/box-8", ["a b", "c"])
    assert (no_pod["text"], no_pod["status"]) == ('pods "box-8" not found', 404)
    assert (no_container["agent"], no_container["container"], no_container["status"]) == ("box-7", "none", 400)


async def test_a_policy_is_asked_for_what_is_done_in_boxes(tmp_path: Path) -> None:
    async with _fleet(tmp_path, Echo()) as fleet:
        fleet.doors.door._policed.policy = Nobody()
        assert (await _ask(fleet, EXEC))[0] == 403
        (record,) = fleet.doors.records.of("refused")
        assert (record["rule"], record["action"], record["who"]) == ("nobody", "exec", "robot")


async def test_what_is_read_and_who_could_not_log_in_is_recorded(tmp_path: Path) -> None:
    async with _fleet(tmp_path, Echo()) as fleet:
        records = fleet.doors.records
        assert (await _ask(fleet, "/api/v1/nodes"))[0] == 200
        assert (await _ask(fleet, "/api/v1/namespaces/default/pods/box-7"))[0] == 200
        listed, got = [record for record in records.of("read") if record["kind"] == "user"]
        assert (listed["verb"], listed["resource"], listed["who"], listed["peer"]) == (
            "list",
            "nodes",
            "robot",
            "127.0.0.1",
        )
        assert (got["verb"], got["resource"], got["namespace"]) == ("get", "pods", "default")
        assert "box-7" not in str(got)


async def test_bytes_glued_to_the_upgrade_are_not_lost(tmp_path: Path) -> None:
    async with _fleet(tmp_path, Echo()) as fleet, _client(fleet) as (conn, _):
        head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE)
        await conn.write(f"POST {EXEC} HTTP/1.1\r\n{head}content-length: 0\r\n\r\nGLUED".encode())
        received = b""
        while not received.endswith(b"GLUED"):
            received += await conn.read()
        assert received.partition(b"\r\n\r\n")[2] == b"first,GLUED"


async def test_a_client_that_gives_up_before_the_answer_is_noticed_at_the_box(tmp_path: Path) -> None:
    kubelet = Silent()
    async with _fleet(tmp_path, kubelet) as fleet:
        async with _client(fleet) as (conn, _):
            head = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE)
            await conn.write(f"GET {EXEC} HTTP/1.1\r\n{head}\r\n".encode())
            await eventually(lambda: kubelet.requests)
        async with asyncio.timeout(scaled_s(10)):
            await kubelet.gone.wait()


async def test_a_kubelet_that_does_not_answer_is_504(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet_module, "HEAD_TIMEOUT_S", 0.1)
    kubelet = Silent()
    async with _fleet(tmp_path, kubelet) as fleet:
        status, body = await _ask(fleet, EXEC)
        assert status == 504
        assert b"agent box-7 did not answer within" in body
        async with asyncio.timeout(scaled_s(10)):
            await kubelet.gone.wait()


@pytest.mark.parametrize(
    ("raw", "status", "text"),
    [
        (b"SSH-2.0-x\r\n\r\n", 502, b"agent box-7"),
        (b"", 502, b"agent box-7"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\nmissing", 404, b"agent box-7: missing"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhm", 502, b"agent box-7: hm"),
        (b"HTTP/1.1 500 E\r\ncontent-length: 9\r\n\r\nevil\x1b[31m", 500, b"agent box-7: evil?"),
        (b"HTTP/1.1 500 E\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 200_000, 502, b"agent box-7"),
        (
            b"HTTP/1.1 403 F\r\ncontent-length: %d\r\n\r\n%s" % (len(REFUSAL), REFUSAL),
            403,
            b'"message":"agent box-7: not here","reason":"Forbidden"',
        ),
    ],
)
async def test_refusals_and_nonsense_become_a_status(tmp_path: Path, raw: bytes, status: int, text: bytes) -> None:
    async with _fleet(tmp_path, Raw(raw)) as fleet:
        got, body = await _ask(fleet, EXEC)
        assert b'"kind":"Status"' in body
        assert (got, text in body) == (status, True)


async def test_a_kubelet_is_asked_once_for_what_it_does_not_speak(tmp_path: Path) -> None:
    kubelet = Raw(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    async with _fleet(tmp_path, kubelet) as fleet:
        assert [(await _ask(fleet, EXEC))[0] for _ in range(3)] == [403, 403, 403]
        assert len(kubelet.requests) == 1
        older = {**dict(UPGRADE), "upgrade": "SPDY/3.1", "sec-websocket-protocol": ""}
        assert (await _ask(fleet, EXEC, older.items()))[0] == 403
        assert len(kubelet.requests) == 2


async def test_a_log_asks_for_what_the_client_asked_and_no_more(tmp_path: Path) -> None:
    kubelet = Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nlog")
    async with _fleet(tmp_path, kubelet) as fleet:
        target = (
            "/api/v1/namespaces/default/pods/box-7/log?follow=true&tailLines=5&sinceTime=2026-01-01T00:00:00Z&evil=1"
        )
        assert await _ask(fleet, target, [UPGRADE[0], UPGRADE[5]]) == (200, b"log")
    (request,) = kubelet.requests
    assert request.target == (
        "/containerLogs/default/box-7/host?follow=true&sinceTime=2026-01-01T00%3A00%3A00Z&tailLines=5"
    )
    assert dict(request.headers) == {"host": "kubelet"}


async def test_a_log_that_breaks_is_cut_and_not_ended(tmp_path: Path) -> None:
    kubelet = Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\nlog")
    async with _fleet(tmp_path, kubelet) as fleet, _client(fleet) as (_, http):
        response = await http.request("GET", EXEC.partition("/exec")[0] + "/log", [UPGRADE[0], UPGRADE[5]])
        assert response.status == 200
        assert await http.read_chunk() == b"log"
        with pytest.raises(StreamError):
            await http.read_chunk()


async def test_exec_without_an_upgrade_is_400(tmp_path: Path) -> None:
    async with _fleet(tmp_path, Echo()) as fleet:
        status, body = await _ask(fleet, EXEC, [UPGRADE[0], UPGRADE[5]])
        assert status == 400
        assert b"needs an upgrade" in body


async def test_without_credentials_nothing_is_told(tmp_path: Path) -> None:
    async with _fleet(tmp_path, Echo()) as fleet:
        for target in ("/version", "/api/v1/nodes", "/nothing", EXEC):
            for headers in ([("host", "x")], [("host", "x"), ("authorization", "Bearer guess")]):
                status, body = await _ask(fleet, target, headers)
                assert status == 401
                assert b"Unauthorized" in body
                assert b"box-7" not in body
