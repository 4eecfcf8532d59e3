from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from structlog.testing import capture_logs

from tunnel.aio.http.metrics_endpoint import MetricsEndpoint
from tunnel.aio.sockets.listener import Listener


@dataclass
class Page:
    """An endpoint and what it is to say."""

    url: str = ""
    fault: str = ""
    remarks: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    async def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and body, as an ordinary client sees them."""

        def fetch() -> tuple[int, str, str]:
            try:
                with urlopen(Request(self.url + path, method=method), timeout=10) as response:
                    return response.status, response.headers["content-type"], response.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.headers["content-type"], error.read().decode()

        return await asyncio.to_thread(fetch)


@asynccontextmanager
async def serving() -> AsyncIterator[Page]:
    page = Page()
    listener = Listener(
        "metrics", MetricsEndpoint(lambda: b"longline_up 1\n", lambda: page.fault, lambda: page.remarks).handle
    )
    await listener.listen_tcp("127.0.0.1:0")
    page.url = f"http://127.0.0.1:{listener.ports[0]}"
    try:
        yield page
    finally:
        await listener.aclose()


async def test_metrics_are_in_prometheus_text_format() -> None:
    async with serving() as page:
        status, content_type, body = await page.get("/metrics")
    assert (status, body) == (200, "longline_up 1\n")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


async def test_ready_says_why_it_is_not() -> None:
    async with serving() as page:
        assert (await page.get("/readyz"))[::2] == (200, "ok\n")
        page.fault = "draining"
        assert (await page.get("/readyz"))[::2] == (503, "draining\n")
        assert (await page.get("/livez"))[::2] == (200, "ok\n")


async def test_what_is_down_is_told_and_does_not_make_it_unready() -> None:
    async with serving() as page:
        page.remarks = ["socks is down: address already in use"]
        assert (await page.get("/readyz"))[::2] == (200, "ok\nsocks is down: address already in use\n")


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
async def test_all_else_is_refused(path: str, method: str, status: int) -> None:
    async with serving() as page:
        assert (await page.get(path, method))[0] == status


async def test_one_connection_takes_many_requests() -> None:
    async with serving() as page:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(page.url.rpartition(":")[2]))
        for _ in range(3):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(3) == b"ok\n"
        writer.close()
        await writer.wait_closed()


async def test_a_path_that_looks_like_a_host_is_not_found() -> None:
    async with serving() as page:
        host, _, port = page.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET //[ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        with capture_logs() as logs:
            assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()
        assert logs == []


async def test_what_is_no_request_is_told_so_and_logs_nothing() -> None:
    with capture_logs() as logs:
        async with serving() as page:
            port = int(page.url.rpartition(":")[2])
            for head in (
                b"GET http://[ HTTP/1.1\r\nHost: x",
                b"GET http://[/metrics/ HTTP/1.1\r\nHost: x",
                b"GET * HTTP/1.1\r\nHost: x",
                b"GET /%ff%00 HTTP/1.1\r\nHost: x",
                b"GET / HTTP/1.1\r\nHost: [",
                b"nonsense",
                b"GET /%zz HTTP/1.0",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(head + b"\r\n\r\n")
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert b"\r\n\r\nLL6025: " in answer
                writer.close()
    assert logs == []
