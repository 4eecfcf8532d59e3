"""What clients that nobody knows can make a server hold by leaving everything unread."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.aio.http.conftest import HttpSite
from tests.support.http2_client import Answer, Http2Client, http2_client
from tests.support.waits import eventually
from tunnel.aio.http import http2_server
from tunnel.aio.http.http1 import MAX_HEAD_BYTES
from tunnel.aio.http.long_heads import LongHeads
from tunnel.aio.http.stranger import STREAM_BYTES
from tunnel.core.streams.budget import Budget

pytestmark = pytest.mark.timeout(30)
GOOD = ("authorization", "Bearer good")
COST = STREAM_BYTES + http2_server.HTTP2_LIMITS.window_bytes


async def leave_unread(client: Http2Client, streams: int) -> list[Answer]:
    """Ask so often, with no window for any answer's body."""
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    answers = [await client.ask("/echo") for _ in range(streams)]
    await client.until(lambda: all(answer.headers or answer.reset is not None for answer in answers))
    return answers


async def test_streams_that_strangers_leave_come_out_of_one_pool(http_site: HttpSite) -> None:
    heads = http_site.server.heads = LongHeads(strangers=Budget(total_bytes=10 * COST))
    async with (
        http2_client(http_site.port, http_site.context()) as one,
        http2_client(http_site.port, http_site.context()) as other,
    ):
        left = await leave_unread(one, 30)
        assert [answer.reset for answer in left].count(None) == 10  # nine of the pool, and the one that each has
        assert {answer.reset for answer in left} == {None, ErrorCodes.REFUSED_STREAM}
        assert (await other.get("/echo")).status == 200
    await eventually(lambda: heads.strangers.used_bytes == 0)


async def test_a_user_takes_nothing_of_it_and_gets_in_while_it_is_full(http_site: HttpSite) -> None:
    heads = http_site.server.heads = LongHeads(strangers=Budget(total_bytes=0))
    async with http2_client(http_site.port, http_site.context()) as client:
        assert (await client.get("/echo", GOOD)).status == 200
        left = await leave_unread(client, 50)
        assert all(answer.status == 200 for answer in left)
        assert heads.strangers.used_bytes == 0


async def test_many_requests_of_a_user_in_one_packet_are_all_served(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        answers = [await client.ask("/echo", GOOD, flush=False) for _ in range(100)]
        await client.flush()
        await client.until(lambda: all(answer.ended for answer in answers))
        assert {answer.status for answer in answers} == {200}
        assert http_site.server.heads.strangers.used_bytes == 0


async def test_a_connection_that_stays_a_strangers_ends(http_site: HttpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "HEAD_TIMEOUT_S", 0.3)
    async with (
        http2_client(http_site.port, http_site.context()) as stranger,
        http2_client(http_site.port, http_site.context()) as user,
    ):
        quiet = await user.ask("/quiet", GOOD)
        await user.until(lambda: quiet.body)
        await leave_unread(stranger, 3)
        await stranger.until(lambda: stranger.closed)
        assert stranger.goaway == ErrorCodes.NO_ERROR
        assert not user.closed
        http_site.go_on.set()
        await user.until(lambda: quiet.ended)


async def test_a_box_is_a_stranger_whatever_its_certificate(http_site: HttpSite) -> None:
    heads = http_site.server.heads = LongHeads(strangers=Budget(total_bytes=0))
    box = http_site.context(uri="spiffe://longline/agent/box-7")
    async with http2_client(http_site.port, box) as client:
        assert (await client.get("/echo")).status == 200
        assert client.h2.remote_settings.max_header_list_size == MAX_HEAD_BYTES
    box.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", http_site.port, ssl=box)
    writer.write(b"GET /" + b"x" * 2 * MAX_HEAD_BYTES)
    assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
    assert heads.users.used_bytes == 0
    writer.transport.abort()
