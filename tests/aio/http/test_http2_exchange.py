"""Exchanges that are streams of HTTP/2."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.aio.http.conftest import BIG, HttpSite
from tests.support.http2_client import Answer, Http2Client, http2_client
from tests.support.waits import eventually
from tunnel.aio.http.http2_server import HTTP2_LIMITS

pytestmark = pytest.mark.timeout(30)


async def test_many_at_once_on_one_connection(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        quiet = await client.ask("/quiet")
        answers = [await client.ask(f"/echo?{number}") for number in range(50)]
        await client.until(lambda: all(answer.ended for answer in answers))
        assert [answer.body for answer in answers] == [b"/echo?%d" % number for number in range(50)]
        assert answers[0].headers["x-peer"].startswith("127.0.0.1:")
        assert answers[0].headers["content-length"] == "7"
        assert "date" in answers[0].headers
        assert quiet.body == b"first\n"
        assert not quiet.ended
        http_site.go_on.set()
        await client.until(lambda: quiet.ended)
    assert http_site.listener.connections <= 1


async def test_repeated_fields_and_queries_arrive_as_they_were_sent(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        await client.get("/echo?a=%2F&a=2", ("accept", "one"), ("accept", "two"))
    (request,) = http_site.seen
    assert request.headers.getlist("accept") == ["one", "two"]
    assert request.query == [("a", "/"), ("a", "2")]
    assert request.upgrade is None
    assert not [name for name, _ in request.headers if name.startswith(":")]


async def test_a_head_request_and_an_answer_without_a_body(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        head = await client.ask("/echo", method="HEAD")
        nothing = await client.get("/nothing")
        await client.until(lambda: head.ended)
        assert (head.status, head.headers["content-length"], head.body) == (200, "5", b"")
        assert (nothing.status, nothing.body) == (204, b"")
        assert "content-length" not in nothing.headers


async def test_a_body_larger_than_the_window_is_read(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        answer = await client.ask("/body", method="POST", end=False)
        number, left = client.number(answer), 90_000
        assert left > HTTP2_LIMITS.window_bytes
        while left:
            size = min(left, client.h2.local_flow_control_window(number), 16384)
            if not size:
                await client.until(lambda: client.h2.local_flow_control_window(number))
                continue
            left -= size
            client.h2.send_data(number, bytes(size), end_stream=not left)
            await client.flush()
        await client.until(lambda: answer.ended)
        assert answer.body == b"90000"


async def test_a_body_over_the_limit_cuts_off_no_other_stream(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        quiet = await client.ask("/quiet")
        answer = await client.ask("/body", method="POST", end=False)
        number = client.number(answer)
        sent = 0
        while answer.reset is None and sent < 200_000:
            if client.h2.local_flow_control_window(number) < 10_000:
                await client.until(lambda: _open_or_reset(client, number))
                continue
            client.h2.send_data(number, bytes(10_000))
            sent += 10_000
            await client.flush()
        await client.until(lambda: answer.reset is not None)
        assert not quiet.ended
        assert quiet.reset is None


async def test_a_slow_reader_stops_its_own_stream_and_no_other(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        client.crediting = False
        client.h2.increment_flow_control_window(1 << 24)  # the connection's: only the stream's own is in the way
        big = await client.ask("/big")
        await client.until(lambda: len(big.body) == 65535)
        assert (await client.get("/echo")).body == b"/echo"
        assert http_site.ended == []
        client.h2.increment_flow_control_window(len(BIG), client.number(big))
        await client.flush()
        await client.until(lambda: big.ended)
        assert big.body == BIG


async def test_a_client_with_wide_windows_that_opens_them_bit_by_bit_is_read_in_turns(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        client.crediting = False
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1024 * 1024})
        client.h2.increment_flow_control_window(1 << 30)
        big = await client.ask("/big")
        await client.until(lambda: len(big.body) == 1024 * 1024)
        while not big.ended and len(big.body) < len(BIG):
            client.h2.increment_flow_control_window(16384, client.number(big))
            await client.flush()
            await asyncio.sleep(0)
        assert (await client.get("/echo")).body == b"/echo"
        await client.until(lambda: big.ended)
        assert big.body == BIG


async def test_a_reset_ends_the_work_for_that_stream_alone(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        stays, goes = await client.ask("/quiet"), await client.ask("/quiet")
        await client.until(lambda: stays.body and goes.body)
        client.h2.reset_stream(client.number(goes), ErrorCodes.CANCEL)
        await client.flush()
        await eventually(lambda: http_site.ended == ["gone"])
        http_site.go_on.set()
        await client.until(lambda: stays.ended)
        assert http_site.ended == ["gone", "whole"]


async def test_a_client_that_leaves_ends_all_its_work(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        answers = [await client.ask("/quiet") for _ in range(3)]
        client.crediting = False
        big = await client.ask("/big")
        await client.until(lambda: big.body and all(answer.body for answer in answers))
    await eventually(lambda: len(http_site.ended) == 4)
    assert sorted(http_site.ended)[:3] == ["gone"] * 3
    await eventually(lambda: http_site.listener.connections == 0)


async def test_an_answer_that_is_cut_off_has_no_end(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        answer = await client.ask("/cut")
        await client.until(lambda: answer.reset is not None)
        assert answer.reset == ErrorCodes.INTERNAL_ERROR
        assert not answer.ended
        assert (await client.get("/echo")).status == 200


async def test_there_is_nothing_to_switch_to(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        answer = await client.get("/switch")
        assert answer.reset == ErrorCodes.INTERNAL_ERROR


async def test_connect_is_not_served(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        number = client.h2.get_next_available_stream_id()
        client.h2.send_headers(number, [(":method", "CONNECT"), (":authority", "db:5432")])
        answer = client.answers[number] = Answer()
        await client.flush()
        await client.until(lambda: answer.headers)
        assert answer.status == 405
    assert http_site.seen == []


async def test_an_http1_client_is_served_on_the_same_port(http_site: HttpSite) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http_site.port, ssl=http_site.context())
    writer.write(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"/echo")


def _open_or_reset(client: Http2Client, number: int) -> bool:
    return client.answers[number].reset is not None or client.h2.local_flow_control_window(number) >= 10_000
