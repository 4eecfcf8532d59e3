"""Requests go on to the API server as they are, and answers come back so, by either version of HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.upward.lines import Lines
from edge_agent.autonomy.upward.passing import Unreached, pass_on
from tests.support.http2_client import Http2Client, http2_client
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import ClientConnection, HttpError, Refusal, Request, Response, ServerConnection
from tunnel.aio.http.server import ALPN_PROTOCOLS, HttpServer
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.core.wire.errors import StreamError

LONG = bytes(range(256)) * 4 * 1024 * 2  # 2 MiB
Answering = Callable[["Api", ServerConnection, Request, Conn], Coroutine[Any, Any, None]]


@dataclass
class Api:
    """An API server of one scripted answer, and the proxy in front of it."""

    folder: Path
    authority: Authority
    answer: Answering | None = None
    seen: list[Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: list[Conn] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """How each connection ended: `closed` or `reset`."""
    port: int = 0
    """Of the proxy."""
    lines: Lines = field(init=False)
    api: Listener = field(init=False)

    async def serve_api(self, conn: Conn) -> None:
        self.connections.append(conn)
        http = ServerConnection(conn)
        try:
            while (request := await http.next_request()) is not None:
                self.seen.append(request)
                assert self.answer is not None
                await self.answer(self, http, request, conn)
            self.ended.append("closed")
        except StreamError:
            self.ended.append("reset")

    async def serve_proxy(self, _conn: Conn, exchange: Exchange, request: Request) -> None:
        try:
            await pass_on(exchange, request, self.lines, "api:6443")
        except Unreached as error:
            await exchange.respond(503, [("content-type", "text/plain")], error.text.encode())
        except HttpError as error:
            if exchange.answered:
                raise
            await exchange.respond(error.status, [], error.text.encode())

    async def dial_api(self, *, http2: bool = False) -> Conn:
        conn = Conn()
        await connect_tcp(lambda: conn, "127.0.0.1", self.api.ports[0])
        return conn

    def context(self, protocol: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.set_alpn_protocols([protocol])
        return context

    @asynccontextmanager
    async def http1(self) -> AsyncIterator[ClientConnection]:
        conn = await dial_tls("127.0.0.1", self.port, self.context("http/1.1"), handshake_timeout_s=5)
        try:
            yield ClientConnection(conn)
        finally:
            conn.reset()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    made = Api(tmp_path, Authority())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made.authority.issue(hosts=["127.0.0.1"]).write(tmp_path, "proxy"))
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    server = HttpServer(made.serve_proxy, lambda error: Refusal("text/plain", error.text.encode()), lambda _peer: True)
    made.lines = Lines(made.dial_api, idle_s=60)
    made.api, proxy = Listener("api", made.serve_api), Listener("proxy", server.handle)
    await made.api.listen_tcp("127.0.0.1:0")
    await proxy.listen_tcp("127.0.0.1:0", context)
    made.port = proxy.ports[0]
    yield made
    made.lines.close()
    await proxy.aclose()
    await made.api.aclose()


@dataclass
class Said:
    """An answer, by either version."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def every(self, name: str) -> list[str]:
        return [value for one, value in self.headers if one == name]


async def asked(
    api: Api, version: int, method: str, target: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
) -> Said:
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        if version == 1:
            client = await stack.enter_async_context(api.http1())
            answer: Response = await client.request(method, target, [("host", "x"), *(headers or [])], body)
            read = b"" if method == "HEAD" else await client.read_body(10**7)
            return Said(answer.status, list(answer.headers), read)
        http2: Http2Client = await stack.enter_async_context(http2_client(api.port, api.context("h2")))
        came = await http2.ask(target, *(headers or []), method=method, end=not body)
        if body:
            await upload(http2, body)
        await http2.until(lambda: came.ended or came.reset is not None)
        assert came.reset is None
        return Said(came.status, list(came.headers.items()), came.body)


async def upload(client: Http2Client, body: bytes, *, end: bool = True) -> None:
    """Sends the body of the last request as fast as it is read."""
    number = max(client.answers)
    while body:
        await client.until(lambda: client.h2.local_flow_control_window(number) > 0)
        room = min(client.h2.local_flow_control_window(number), client.h2.max_outbound_frame_size)
        client.h2.send_data(number, body[:room], end_stream=end and len(body) <= room)
        body = body[room:]
        await client.flush()


async def echo(api: Api, http: ServerConnection, request: Request, _conn: Conn) -> None:
    api.bodies.append(await http.read_body(10**7))
    await http.respond(200, [("x-name", "value"), ("audit-id", "one")], b"{}")


BOTH = pytest.mark.parametrize("version", [1, 2])


@BOTH
async def test_what_is_asked_and_answered_arrives_as_it_is(api: Api, version: int) -> None:
    api.answer = echo
    target = "/api/v1/pods?labelSelector=a%3Db&limit=500&fieldSelector=x%21%3Dy"
    mine = [
        ("accept", "application/json"),
        ("accept", "application/yaml"),
        ("authorization", "Bearer me"),
        ("user-agent", "k"),
    ]
    said = await asked(api, version, "GET", target, mine)
    assert (said.status, said.body) == (200, b"{}")
    assert said.every("x-name") == ["value"]
    assert len(said.every("date")) == len(said.every("content-length")) == 1
    (request,) = api.seen
    assert (request.method, request.target) == ("GET", target)
    assert request.headers.getlist("accept") == ["application/json", "application/yaml"]
    assert request.headers.get("authorization") == "Bearer me"
    assert request.headers.get("host") == "api:6443"
    assert request.headers.get("content-length") is None


async def test_headers_about_one_connection_stay_on_it(api: Api) -> None:
    async def answer(_api: Api, http: ServerConnection, _request: Request, _conn: Conn) -> None:
        await http.respond(
            200, [("connection", "x-hop"), ("x-hop", "a"), ("keep-alive", "timeout=1"), ("x-end", "b")], b""
        )

    api.answer = answer
    hops = [("connection", "x-mine, keep-alive"), ("x-mine", "1"), ("te", "trailers"), ("proxy-authorization", "p")]
    said = await asked(api, 1, "GET", "/", hops)
    assert said.every("x-end") == ["b"]
    assert not said.every("x-hop") + said.every("keep-alive")
    assert not {"x-mine", "te", "proxy-authorization", "connection"} & {name for name, _ in api.seen[0].headers}


@BOTH
@pytest.mark.parametrize("size", [0, 100, 300_000, len(LONG)])
async def test_bodies_of_any_length(api: Api, version: int, size: int) -> None:
    api.answer = echo
    said = await asked(api, version, "PUT", "/x", body=LONG[:size])
    assert said.status == 200
    assert api.bodies == [LONG[:size]]


@BOTH
@pytest.mark.parametrize("status", [200, 204, 304, 404])
async def test_answers_with_and_without_a_body(api: Api, version: int, status: int) -> None:
    async def answer(_api: Api, http: ServerConnection, _request: Request, _conn: Conn) -> None:
        await http.respond(status, [("etag", "x")], b"" if status in (204, 304) else b"said")

    api.answer = answer
    said = await asked(api, version, "GET", "/")
    assert (said.status, said.body) == (status, b"" if status in (204, 304) else b"said")
    head = await asked(api, version, "HEAD", "/")
    assert (head.status, head.body) == (status, b"")
    if status not in (204, 304):
        assert head.every("content-length") == ["4"]


@BOTH
async def test_a_watch_is_passed_on_event_by_event_and_its_end_is_an_end(api: Api, version: int) -> None:
    go_on = asyncio.Event()

    async def watch(_api: Api, http: ServerConnection, _request: Request, _conn: Conn) -> None:
        await http.start(200, [("content-type", "application/json")])
        await http.send(b"first\n")
        await go_on.wait()
        await http.send(b"second\n")
        await http.finish()

    api.answer = watch
    async with asyncio.timeout(20):
        if version == 1:
            async with api.http1() as client:
                await client.request("GET", "/w", [("host", "x")])
                assert await client.read_chunk() == b"first\n"
                go_on.set()
                assert await client.read_body(100) == b"second\n"
        else:
            async with http2_client(api.port, api.context("h2")) as http2:
                answer = await http2.ask("/w")
                await http2.until(lambda: answer.body == b"first\n")
                go_on.set()
                await http2.until(lambda: answer.ended)
                assert answer.body == b"first\nsecond\n"


@BOTH
async def test_an_answer_that_breaks_off_has_no_end(api: Api, version: int) -> None:
    async def cut(_api: Api, http: ServerConnection, _request: Request, conn: Conn) -> None:
        await http.start(200)
        await http.send(b"half of")
        await asyncio.sleep(0.05)
        conn.reset()

    api.answer = cut
    async with asyncio.timeout(20):
        if version == 1:
            async with api.http1() as client:
                await client.request("GET", "/", [("host", "x")])
                with pytest.raises(StreamError):
                    await client.read_body(100)
        else:
            async with http2_client(api.port, api.context("h2")) as http2:
                answer = await http2.ask("/")
                await http2.until(lambda: answer.reset is not None)
                assert not answer.ended


async def watch_until_gone(_api: Api, http: ServerConnection, _request: Request, _conn: Conn) -> None:
    await http.start(200)
    await http.send(b"first\n")
    await http.wait_client_gone()
    raise StreamError("the client is gone")


@BOTH
async def test_a_client_that_leaves_ends_its_request_at_the_api_server(api: Api, version: int) -> None:
    api.answer = watch_until_gone
    async with asyncio.timeout(20):
        if version == 1:
            async with api.http1() as client:
                await client.request("GET", "/w", [("host", "x")])
                assert await client.read_chunk() == b"first\n"
        else:
            async with http2_client(api.port, api.context("h2")) as http2:
                answer = await http2.ask("/w")
                await http2.until(lambda: answer.body == b"first\n")
    await eventually(lambda: api.ended == ["reset"])
    assert api.lines.idle == 0


async def test_an_upgrade_is_bytes_both_ways_and_each_end_is_an_end(api: Api) -> None:
    async def switch(_api: Api, http: ServerConnection, request: Request, conn: Conn) -> None:
        assert request.upgrade == "websocket"
        early = await http.upgrade([("connection", "Upgrade"), ("upgrade", "websocket"), ("x-proto", "v5")])
        assert early == b""
        await conn.write(b"hello ")
        while data := await conn.read():
            await conn.write(data.upper())
        await conn.write(b" bye")
        await conn.write_eof()
        raise StreamError("it is over")

    api.answer = switch
    async with asyncio.timeout(20):
        conn = await dial_tls("127.0.0.1", api.port, api.context("http/1.1"), handshake_timeout_s=5)
        client = ClientConnection(conn)
        head = await client.request(
            "GET", "/exec?command=sh", [("host", "x"), ("connection", "Upgrade"), ("upgrade", "websocket")]
        )
        assert (head.status, head.headers.get("x-proto")) == (101, "v5")
        came = bytearray(client.trailing_data())
        await conn.write(b"abc")
        await conn.write_eof()
        while data := await conn.read():
            came += data
        assert came == b"hello ABC bye"
        conn.close()


async def test_a_connection_is_used_again_and_one_that_was_closed_meanwhile_is_not_noticed(api: Api) -> None:
    api.answer = echo
    for _ in range(3):
        assert (await asked(api, 1, "GET", "/")).status == 200
    assert len(api.connections) == 1

    async def once(_api: Api, http: ServerConnection, _request: Request, conn: Conn) -> None:
        await http.respond(200, [], b"")
        await asyncio.sleep(0.05)
        conn.reset()

    api.answer = once
    assert (await asked(api, 1, "GET", "/")).status == 200
    assert (await asked(api, 1, "PUT", "/", body=b"x")).status == 200
    assert (await asked(api, 1, "GET", "/")).status == 200


async def test_what_may_not_be_sent_twice_is_not(api: Api) -> None:
    api.answer = echo
    assert (await asked(api, 1, "GET", "/")).status == 200

    async def take_and_leave(api: Api, http: ServerConnection, _request: Request, conn: Conn) -> None:
        api.bodies.append(await http.read_body(100))
        conn.reset()

    api.answer = take_and_leave
    assert (await asked(api, 1, "POST", "/", body=b"once")).status == 503
    assert api.bodies.count(b"once") == 1


@BOTH
async def test_an_answer_before_the_body_was_sent_is_the_answer(api: Api, version: int) -> None:
    async def refuse(_api: Api, http: ServerConnection, _request: Request, _conn: Conn) -> None:
        await http.respond(413, [("connection", "close")], b"too long")
        await asyncio.sleep(0.2)

    api.answer = refuse
    async with asyncio.timeout(20):
        if version == 2:
            async with http2_client(api.port, api.context("h2")) as http2:
                answer = await http2.ask("/", method="PUT", end=False)
                await upload(http2, LONG[:300_000], end=False)
                await http2.until(lambda: answer.ended or answer.reset is not None)
                assert (answer.status, answer.body) == (413, b"too long")
            return
        async with api.http1() as client:
            await client.start("PUT", "/", [("host", "x"), ("content-length", str(len(LONG)))], LONG[:300_000])
            assert (await client.response()).status == 413
            assert await client.read_body(100) == b"too long"


async def test_without_an_api_server_the_client_is_told(api: Api) -> None:
    await api.api.aclose()
    said = await asked(api, 1, "GET", "/")
    assert said.status == 503
    assert b"refused" in said.body.lower()


async def test_connections_that_are_cut_are_no_end_of_what_they_carried(api: Api) -> None:
    api.answer = watch_until_gone
    async with asyncio.timeout(20), api.http1() as client:
        await client.request("GET", "/w", [("host", "x")])
        assert await client.read_chunk() == b"first\n"
        api.lines.cut()
        with pytest.raises(StreamError):
            await client.read_chunk()


async def test_nobody_dials_for_a_request_whose_connection_was_cut(api: Api) -> None:
    """Whoever cuts them knows that the API server is not reached: a dial would take its whole time-out."""
    api.answer = echo
    assert (await asked(api, 1, "GET", "/")).status == 200

    async def say_nothing(_api: Api, _http: ServerConnection, _request: Request, _conn: Conn) -> None:
        await asyncio.sleep(60)

    api.answer = say_nothing
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(asked(api, 1, "PUT", "/", body=b"x"))
        await eventually(lambda: len(api.seen) == 2)
        api.lines.cut()
        assert (await waiting).status == 503
    assert len(api.connections) == 1
