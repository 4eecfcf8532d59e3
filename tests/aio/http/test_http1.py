"""HTTP/1.1 over an in-memory Duplex: framing, keep-alive, upgrades, limits and what smuggling needs."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.duplex_pair import MemoryDuplex, duplex_pair
from tunnel.aio.http.http1 import ClientConnection, Headers, HttpError, Request, ServerConnection
from tunnel.core.wire.errors import StreamReset

pytestmark = pytest.mark.timeout(20)


async def _connected(
    max_head_bytes: int = 65536,
) -> tuple[ClientConnection, ServerConnection, MemoryDuplex, MemoryDuplex]:
    near, far = duplex_pair()
    return ClientConnection(near), ServerConnection(far, max_head_bytes), near, far


async def _read_all(duplex: MemoryDuplex) -> bytes:
    data = b""
    while chunk := await duplex.read():
        data += chunk
    return data


async def test_one_connection_serves_requests_with_and_without_bodies() -> None:
    client, server, _, _ = await _connected()
    seen: list[tuple[str, str, bytes]] = []

    async def serve() -> None:
        while request := await server.next_request():
            body = await server.read_body(1 << 20)
            seen.append((request.method, request.target, body))
            await server.respond(200, [("content-type", "text/plain")], body[::-1])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve())
        for method, body in (("GET", b""), ("POST", b"abc"), ("POST", b"x" * 500_000), ("PUT", b"")):
            response = await client.request(method, "/a?b=1", [("Host", "h")], body)
            assert (response.status, response.reason) == (200, "OK")
            assert response.headers.get("Content-Type") == "text/plain"
            assert await client.read_body(1 << 20) == body[::-1]
        task.cancel()
    assert [(m, t, len(b)) for m, t, b in seen] == [
        ("GET", "/a?b=1", 0),
        ("POST", "/a?b=1", 3),
        ("POST", "/a?b=1", 500_000),
        ("PUT", "/a?b=1", 0),
    ]


def test_request_splits_and_decodes_its_target() -> None:
    request = Request("GET", "/exec/a%20b/c?command=sh&command=-c&command=echo+1%262&tty=", Headers())
    assert request.path == "/exec/a b/c"
    assert request.query == [("command", "sh"), ("command", "-c"), ("command", "echo 1&2"), ("tty", "")]
    assert request.raw_query == "command=sh&command=-c&command=echo+1%262&tty="


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://proxy.example/a%20b?c=http://d/e", "/a b", "c=http://d/e"),
        ("http://proxy.example", "/", ""),
        ("/a?b=http://c/d", "/a", "b=http://c/d"),
        ("/a/https://b", "/a/https://b", ""),
        ("//[", "//[", ""),
        ("//a/b", "//a/b", ""),
        ("http://[/a", "/a", ""),
        ("*", "*", ""),
        ("?", "", ""),
    ],
)
def test_whatever_a_target_is_it_has_a_path(target: str, path: str, query: str) -> None:
    request = Request("GET", target, Headers())
    assert (request.path, request.raw_query) == (path, query)


def test_headers_match_without_case_and_hide_values_in_repr() -> None:
    connection = ("Connection", "keep-alive, Upgrade")
    headers = Headers([connection, ("X-A", "1"), ("x-a", "2"), ("Authorization", "Bearer s3")])
    assert headers.get("x-A") == "1"
    assert headers.getlist("X-a") == ["1", "2"]
    assert headers.get("none") is None
    assert headers.tokens("connection") == ["keep-alive", "upgrade"]
    assert "s3" not in repr(headers)
    assert len(headers) == 4


async def test_a_streamed_answer_is_chunked_and_arrives_part_by_part() -> None:
    client, server, near, _ = await _connected()
    go_on = asyncio.Event()

    async def serve() -> None:
        assert await server.next_request()
        await server.start(200)
        await server.send(b"one")
        await go_on.wait()
        await server.send(b"two")
        await server.finish()

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        response = await client.request("GET", "/", [("host", "h")])
        assert response.headers.get("transfer-encoding") == "chunked"
        assert await client.read_chunk() == b"one"
        go_on.set()
        assert await client.read_chunk() == b"two"
        assert await client.read_chunk() == b""
        assert await client.read_chunk() == b""
    assert not near.closed


async def test_a_chunked_request_body_is_read() -> None:
    _, server, near, _ = await _connected()
    await near.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    await near.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert await server.next_request()
    assert await server.read_body(10) == b"abcde"


async def test_a_body_over_the_limit_is_413() -> None:
    _, server, near, _ = await _connected()
    await near.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world")
    assert await server.next_request()
    with pytest.raises(HttpError) as caught:
        await server.read_body(10)
    assert caught.value.status == 413


async def test_continue_is_sent_when_the_body_is_wanted() -> None:
    _, server, near, _ = await _connected()
    await near.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await server.next_request()
    async with asyncio.TaskGroup() as group:
        body = group.create_task(server.read_body(10))
        assert (await near.read()).startswith(b"HTTP/1.1 100 ")
        await near.write(b"ok")
    assert body.result() == b"ok"


async def test_a_refused_body_ends_the_connection_instead_of_being_read() -> None:
    _, server, near, far = await _connected()
    await near.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await server.next_request()
    await server.respond(401, [("connection", "close")])
    assert await server.next_request() is None
    await far.aclose()
    answer = await _read_all(near)
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized")
    assert b"100" not in answer


async def test_an_unread_small_body_does_not_end_the_connection_and_a_huge_one_does() -> None:
    _client, server, near, _ = await _connected()
    for size, goes_on in ((1000, True), (200_000, False)):
        head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode()
        await near.write(head + b"x" * size + b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await server.next_request()
        await server.respond(404)
        after = await server.next_request()
        assert (after is not None and after.target == "/next") is goes_on
        if after:
            await server.respond(200)


async def test_head_gets_the_length_and_no_body() -> None:
    client, server, _, _ = await _connected()

    async def serve() -> None:
        for _ in range(2):
            assert await server.next_request()
            await server.respond(200, (), b"12345")

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        response = await client.request("HEAD", "/", [("host", "h")])
        assert response.headers.get("content-length") == "5"
        assert await client.read_body(10) == b""
        await client.request("GET", "/", [("host", "h")])
        assert await client.read_body(10) == b"12345"


async def test_an_upgrade_hands_back_what_came_early_on_both_sides() -> None:
    _client, server, near, _far = await _connected()
    await near.write(
        b"GET /exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nEARLY",
    )
    request = await server.next_request()
    assert request
    assert request.upgrade == "websocket"
    assert await server.upgrade([("upgrade", "websocket"), ("connection", "Upgrade")]) == b"EARLY"
    head = await near.read()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert head.endswith(b"\r\n\r\n")

    far_end, near_end = duplex_pair()
    upgrading = ClientConnection(near_end)
    await far_end.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await far_end.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nraw")
    response = await upgrading.request(
        "POST", "/exec", [("host", "h"), ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]
    )
    assert response.status == 101
    assert response.headers.get("upgrade") == "SPDY/3.1"
    assert upgrading.trailing_data() == b"raw"


async def test_a_refused_upgrade_is_an_ordinary_answer() -> None:
    client, server, _, _ = await _connected()

    async def serve() -> None:
        assert await server.next_request()
        await server.respond(403, (), b"no")
        assert await server.next_request()
        await server.respond(200, (), b"yes")

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        upgrade = [("host", "h"), ("connection", "upgrade"), ("upgrade", "websocket")]
        assert (await client.request("GET", "/", upgrade)).status == 403
        assert await client.read_body(10) == b"no"
        assert (await client.request("GET", "/", [("host", "h")])).status == 200


SMUGGLING = [
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n",
]


@pytest.mark.parametrize("raw", SMUGGLING)
async def test_an_ambiguous_or_broken_head_is_refused(raw: bytes) -> None:
    _, server, near, far = await _connected()
    await near.write(raw)
    await near.write_eof()
    assert await server.next_request() is None
    await far.aclose()
    answer = await _read_all(near)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert b"connection: close" in answer.lower()


async def test_with_both_lengths_the_chunked_one_counts_and_is_the_only_one() -> None:
    _, server, near, _ = await _connected()
    await near.write(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    )
    assert await server.next_request()
    assert await server.read_body(10) == b"a"


async def test_a_head_over_the_limit_is_431() -> None:
    _, server, near, far = await _connected(max_head_bytes=2000)
    await near.write(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 3000)
    assert await server.next_request() is None
    await far.aclose()
    assert (await _read_all(near)).startswith(b"HTTP/1.1 431 ")


async def test_a_client_that_ends_between_requests_ends_the_loop() -> None:
    _, server, near, _ = await _connected()
    await near.write_eof()
    assert await server.next_request() is None


async def test_a_client_that_ends_inside_its_body_is_an_error() -> None:
    _, server, near, _ = await _connected()
    await near.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
    await near.write_eof()
    assert await server.next_request()
    with pytest.raises(HttpError):
        await server.read_body(10)


async def test_a_server_that_ends_before_its_answer_is_an_error() -> None:
    near, far = duplex_pair()
    await far.write_eof()
    with pytest.raises(HttpError):
        await ClientConnection(near).request("GET", "/", [("host", "h")])


async def test_a_server_that_ends_inside_its_answer_is_an_error_and_not_an_end() -> None:
    near, far = duplex_pair()
    client = ClientConnection(near)
    await far.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    await far.write_eof()
    await client.request("GET", "/", [("host", "h")])
    assert await client.read_chunk() == b"ab"
    with pytest.raises(HttpError):
        await client.read_chunk()


async def test_a_reset_is_seen_as_a_reset() -> None:
    client, server, _near, far = await _connected()
    far.reset()
    with pytest.raises(StreamReset):
        await client.request("GET", "/", [("host", "h")])
    with pytest.raises(StreamReset):
        await server.next_request()


async def test_a_cancelled_wait_for_a_request_loses_nothing() -> None:
    _, server, near, _ = await _connected()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await server.next_request()
    await near.write(b"GET /kept HTTP/1.1\r\nHos")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await server.next_request()
    await near.write(b"t: h\r\n\r\n")
    request = await server.next_request()
    assert request
    assert request.target == "/kept"


@pytest.fixture
async def streaming() -> tuple[ServerConnection, MemoryDuplex]:
    """A server in the middle of a streamed answer, and its client's end."""
    _, server, near, _ = await _connected()
    await near.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert await server.next_request()
    await server.start(200)
    return server, near


@pytest.mark.parametrize("how", ["eof", "reset", "close"])
async def test_a_client_that_goes_during_a_long_answer_is_noticed(
    streaming: tuple[ServerConnection, MemoryDuplex], how: str
) -> None:
    server, near = streaming
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(server.wait_client_gone())
        await near.read()
        assert not gone.done()
        if how == "eof":
            await near.write_eof()
        elif how == "close":
            await near.aclose()
        else:
            near.reset()


async def test_a_request_that_comes_during_a_long_answer_is_kept(
    streaming: tuple[ServerConnection, MemoryDuplex],
) -> None:
    server, near = streaming
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(server.wait_client_gone())
        await near.write(b"GET /second HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(watching)
        watching.cancel()
    await server.send(b"x")
    await server.finish()
    request = await server.next_request()
    assert request
    assert request.target == "/second"


async def test_no_second_request_where_the_server_keeps_nothing() -> None:
    client, _, near, far = await _connected()
    await far.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (await client.request("GET", "/", [("Host", "h")])).status == 404
    with pytest.raises(HttpError, match="keeps the connection no longer"):
        await client.request("GET", "/", [("Host", "h")])
    near.reset()
