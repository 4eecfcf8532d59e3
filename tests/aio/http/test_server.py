"""Connections of both versions: how long heads may be and for whom, idle ones, drained ones, floods."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from structlog.testing import capture_logs

from tests.aio.http.conftest import BIG, HttpSite
from tests.support.http2_client import Http2Client, http2_client
from tests.support.waits import eventually
from tunnel.aio.http import http2_server
from tunnel.aio.http.http1 import MAX_HEAD_BYTES, MAX_LONG_HEAD_BYTES
from tunnel.aio.http.long_heads import LongHeads
from tunnel.core.streams.budget import Budget

pytestmark = pytest.mark.timeout(30)
GOOD = ("authorization", "Bearer good")


@asynccontextmanager
async def http1(
    site: HttpSite, *, user: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=site.context(user=user))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(length: int) -> bytes:
    """A request's, so many bytes long."""
    start, end = b"GET /echo?", b" HTTP/1.1\r\nHost: h\r\n\r\n"
    return start + b"x" * (length - len(start) - len(end)) + end


async def status(reader: asyncio.StreamReader) -> int:
    return int((await reader.readline()).split()[1])


# HTTP/1.1


@pytest.mark.parametrize("user", [False, True])
async def test_a_head_of_a_megabyte_is_taken(http_site: HttpSite, user: bool) -> None:
    async with http1(http_site, user=user) as (reader, writer):
        writer.write(head(1_000_000))
        assert await status(reader) == 200
    assert len(http_site.seen[0].target) > 999_000


async def test_a_longer_one_is_431_in_the_front_ends_own_words(http_site: HttpSite) -> None:
    async with http1(http_site) as (reader, writer):
        writer.write(head(MAX_LONG_HEAD_BYTES + 400_000))
        answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body) == {"message": "the request's head is longer than 1048576 bytes"}


async def test_the_rest_of_a_request_that_was_refused_is_taken(http_site: HttpSite) -> None:
    def ask() -> bytes:
        answer = b""
        with (
            socket.create_connection(("127.0.0.1", http_site.port), timeout=20) as raw,
            http_site.context().wrap_socket(raw, server_hostname="127.0.0.1") as sock,
        ):
            sock.sendall(head(MAX_LONG_HEAD_BYTES + 400_000)[: MAX_LONG_HEAD_BYTES + 50_000])
            while received := sock.recv(65536):
                answer += received
            for _ in range(20):  # the first few would come back as a reset
                sock.sendall(bytes(16 * 1024))
        return answer

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 431 ")


async def test_strangers_share_one_pool_for_long_heads_and_users_have_their_own(
    http_site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = http_site.server.heads = LongHeads(strangers=Budget(total_bytes=600_000))
    async with http1(http_site) as (_, slow), http1(http_site) as (reader, writer):
        slow.write(head(1_000_000)[:500_000])
        await eventually(lambda: heads.strangers.used_bytes > 400_000)
        writer.write(head(500_000))
        assert await status(reader) == 503
        async with http1(http_site) as (reader, writer):
            writer.write(head(MAX_HEAD_BYTES))
            assert await status(reader) == 200
        async with http1(http_site, user=True) as (reader, writer):
            writer.write(head(900_000))
            assert await status(reader) == 200
    await eventually(lambda: heads.strangers.used_bytes == heads.users.used_bytes == 0)


async def test_a_head_counts_as_long_as_its_request_is_served(http_site: HttpSite) -> None:
    users = http_site.server.heads.users
    async with http1(http_site, user=True) as (reader, writer):
        writer.write(head(500_000).replace(b"/echo", b"/quiet"))
        assert await status(reader) == 200
        assert users.used_bytes > 400_000
        http_site.go_on.set()
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(head(100))
        await eventually(lambda: users.used_bytes == 0)


async def test_a_good_token_moves_a_connection_to_the_users_pool(http_site: HttpSite) -> None:
    heads = http_site.server.heads = LongHeads(strangers=Budget(total_bytes=0))
    async with http1(http_site) as (reader, writer):
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(500_000))
        assert await status(reader) == 200
    await eventually(lambda: heads.users.used_bytes == 0)


# HTTP/2


async def test_a_stranger_may_send_short_heads_and_a_known_user_long_ones(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        assert (await client.get("/echo")).status == 200
        assert client.h2.remote_settings.max_header_list_size == MAX_HEAD_BYTES
        assert (await client.get("/echo", GOOD)).status == 200
        await client.until(lambda: client.h2.remote_settings.max_header_list_size == MAX_LONG_HEAD_BYTES)
        assert (await client.get("/echo?" + "x" * 1_000_000)).status == 200
    assert len(http_site.seen[-1].target) > 1_000_000


async def test_a_certificate_makes_a_user_known_from_the_start(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context(user=True)) as client:
        await client.until(lambda: client.h2.remote_settings.max_header_list_size == MAX_LONG_HEAD_BYTES)
        assert (await client.get("/echo?" + "x" * 1_000_000)).status == 200


async def test_a_stranger_with_a_long_head_is_cut_off(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        await client.ask("/echo?" + "x" * 200_000)
        await client.until(lambda: client.closed)
        assert client.goaway == ErrorCodes.ENHANCE_YOUR_CALM
    assert http_site.seen == []


async def test_the_heads_of_all_streams_together_are_bounded(
    http_site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_server, "HTTP2_LIMITS", replace(http2_server.HTTP2_LIMITS, heads_bytes=100_000))
    async with http2_client(http_site.port, http_site.context(user=True)) as client:
        first = await client.ask("/quiet?" + "x" * 60_000)
        second = await client.ask("/quiet?" + "x" * 60_000)
        await client.until(lambda: first.body and second.reset is not None)
        assert second.reset == ErrorCodes.REFUSED_STREAM  # which clients send again elsewhere
        http_site.go_on.set()
        await client.until(lambda: first.ended)
        assert (await client.get("/echo?" + "x" * 60_000)).status == 200


async def test_more_streams_than_there_may_be_are_told_beforehand(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        await client.get("/echo")
        assert client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] == http2_server.MAX_STREAMS


async def test_requests_that_are_reset_at_once_end_the_connection(http_site: HttpSite) -> None:
    with capture_logs() as logs:
        async with http2_client(http_site.port, http_site.context()) as client:
            await _reset_many(client)
            await client.until(lambda: client.closed)
    assert [line["reason"] for line in logs if line["event"] == "connection closed"] == [
        "the client sent too much that is no data"
    ]
    assert len(http_site.seen) < 2000
    await eventually(lambda: http_site.listener.connections == 0)


async def _reset_many(client: Http2Client) -> None:
    for _ in range(5000):
        if client.closed:
            return
        try:
            answer = await client.ask("/quiet")
            client.h2.reset_stream(client.number(answer), ErrorCodes.CANCEL)
            client.answers.clear()
            await client.flush()
        except (ConnectionError, StreamClosedError):
            return


async def test_a_connection_that_is_not_used_is_closed(http_site: HttpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "HTTP2_LIMITS", replace(http2_server.HTTP2_LIMITS, first_s=0.05, idle_s=0.05))
    async with http2_client(http_site.port, http_site.context()) as never:
        await never.until(lambda: never.closed)
        assert never.goaway == ErrorCodes.NO_ERROR
    async with http2_client(http_site.port, http_site.context()) as used:
        quiet = await used.ask("/quiet")
        await used.until(lambda: quiet.body)
        http_site.go_on.set()
        await used.until(lambda: quiet.ended and used.closed)
        assert used.goaway == ErrorCodes.NO_ERROR


async def test_a_drained_connection_takes_no_more_and_finishes_what_it_has(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        quiet = await client.ask("/quiet")
        await client.until(lambda: quiet.body)
        http_site.server.drain()
        await client.until(lambda: client.goaway is not None)
        http_site.go_on.set()
        await client.until(lambda: quiet.ended and client.closed)


@pytest.mark.parametrize("seen_before", [True, False], ids=["not the first", "the first"])
async def test_one_that_was_still_coming_is_told_of_the_drain_too(http_site: HttpSite, seen_before: bool) -> None:
    async with AsyncExitStack() as stack:
        if seen_before:
            await stack.enter_async_context(http2_client(http_site.port, http_site.context()))
            await eventually(lambda: http_site.server._http2 is not None)
        http_site.server.drain()
        late = await stack.enter_async_context(http2_client(http_site.port, http_site.context()))
        await late.until(lambda: late.goaway is not None)


async def test_a_drain_lets_http1_clients_finish_their_request_and_no_more(http_site: HttpSite) -> None:
    request = b"GET /quiet HTTP/1.1\r\nHost: h\r\n\r\n"
    async with http1(http_site) as idle, http1(http_site) as busy, http1(http_site) as fresh:
        for reader, writer in (idle, busy):
            writer.write(request.replace(b"/quiet", b"/echo"))
            assert b"connection" not in (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(len("/echo"))
        busy[1].write(request)
        assert await status(busy[0]) == 200
        assert http_site.listener.undecided == 1  # the one that has asked for nothing yet
        http_site.server.drain()
        assert await idle[0].read() == b""
        http_site.go_on.set()
        assert (await busy[0].read()).endswith(b"0\r\n\r\n")
        fresh[1].write(request.replace(b"/quiet", b"/echo"))
        answer = (await fresh[0].read()).lower()
        assert answer.startswith(b"http/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer


async def test_a_stop_ends_all(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        quiet = await client.ask("/quiet")
        await client.until(lambda: quiet.body)
        await http_site.listener.aclose()
        await client.until(lambda: client.closed)
        assert not quiet.ended


async def test_what_is_no_http2_is_answered_and_closed(http_site: HttpSite) -> None:
    context = http_site.context()
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", http_site.port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
        await reader.readuntil(b"HTTP/1.1")
    writer.transport.abort()
    assert http_site.seen == []


async def test_who_reads_no_answer_gets_no_more_of_them(http_site: HttpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "MAX_UNREAD_BYTES", 3 * len(BIG))
    async with http2_client(http_site.port, http_site.context()) as client:
        client.crediting = False
        client.h2.increment_flow_control_window(1 << 25)  # the connection's: only those of streams are in the way
        kept = [await client.ask("/big", GOOD) for _ in range(4)]
        more = [await client.get("/big", GOOD) for _ in range(20)]
        assert {(answer.status, answer.headers["retry-after"]) for answer in more} == {(429, "1")}
        assert not any(answer.ended for answer in kept)
        for answer in kept:
            client.h2.increment_flow_control_window(len(BIG), client.number(answer))
        await client.flush()
        await client.until(lambda: all(answer.ended for answer in kept))
        assert (await client.get("/echo", GOOD)).status == 200


async def test_large_parts_of_answers_that_began_are_cut_off_too(
    http_site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_server, "MAX_UNREAD_BYTES", 2 * len(BIG))
    async with http2_client(http_site.port, http_site.context()) as client:
        client.crediting = False
        asked = [await client.ask("/later", GOOD, flush=False) for _ in range(20)]
        await client.flush()
        await client.until(lambda: sum(answer.reset is not None for answer in asked) == 17)
        assert http_site.ended == ["the client does not read its answers"] * 17
