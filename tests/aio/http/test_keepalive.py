"""Silence on HTTP/2 connections: who is asked, how often, and who is dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from tests.aio.http.conftest import HttpSite
from tests.support.http2_client import http2_client
from tests.support.waits import eventually
from tunnel.aio.http import http2_server
from tunnel.aio.http.keepalive import HOST_SILENT_S, KeepAlive, host_silent_s

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_server, "HTTP2_LIMITS", replace(http2_server.HTTP2_LIMITS, ping_s=0.05))


@pytest.mark.usefixtures("often")
async def test_a_client_with_a_quiet_stream_is_asked_again_and_again(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        quiet = await client.ask("/quiet")
        await client.until(lambda: client.pings >= 3)
        assert not quiet.ended


@pytest.mark.usefixtures("often")
async def test_a_client_without_a_stream_is_not_asked(http_site: HttpSite) -> None:
    async with (
        http2_client(http_site.port, http_site.context()) as idle,
        http2_client(http_site.port, http_site.context()) as waits,
    ):
        assert (await idle.get("/echo")).status == 200
        await waits.ask("/quiet")
        await waits.until(lambda: waits.pings >= 4)
        assert idle.pings <= 1  # one may have gone while it asked


@pytest.mark.usefixtures("often")
async def test_a_client_that_stands_still_is_not_cut_off(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        quiet = await client.ask("/quiet")
        await client.until(lambda: quiet.body)
        client.answering = False
        pings = client.pings
        await client.until(lambda: client.pings >= pings + 10)  # none of them is answered
        client.answering = True
        http_site.go_on.set()
        await client.until(lambda: quiet.ended)
        assert http_site.ended == ["whole"]


@dataclass
class Fake:
    """A connection that does nothing."""

    streams: int = 1
    silent_s: float = 0.0
    pings: int = 0
    dead: bool = False

    def ping(self) -> None:
        self.pings += 1

    def host_silent_s(self) -> float:
        return self.silent_s

    def client_dead(self) -> None:
        self.dead = True


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
async def watch(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KeepAlive]:
    monkeypatch.setattr("tunnel.aio.http.keepalive.HOST_SILENT_S", 0.1)
    made = KeepAlive(fake, 0.02)
    yield made
    made.stop()


async def test_a_host_that_acknowledges_nothing_is_dead(fake: Fake, watch: KeepAlive) -> None:
    fake.silent_s = HOST_SILENT_S
    await eventually(lambda: fake.dead)
    assert fake.pings


async def test_a_host_that_acknowledges_is_alive(fake: Fake, watch: KeepAlive) -> None:
    await eventually(lambda: fake.pings >= 10)
    assert not fake.dead


async def test_one_direction_that_is_not_silent_is_not_enough(fake: Fake, watch: KeepAlive) -> None:
    fake.silent_s = HOST_SILENT_S
    loop = asyncio.get_running_loop()
    said: list[asyncio.TimerHandle] = []

    def say() -> None:
        watch.said()
        said[:] = [loop.call_later(0.005, say)]

    say()
    await eventually(lambda: fake.pings)
    await eventually(lambda: fake.dead)
    said[0].cancel()


async def test_bytes_both_ways_make_questions_needless(fake: Fake, watch: KeepAlive) -> None:
    loop = asyncio.get_running_loop()
    turns = 0

    def talk() -> None:
        nonlocal turns
        watch.said()
        watch.heard()
        turns += 1
        if turns < 100:
            loop.call_later(0.002, talk)

    talk()
    await eventually(lambda: turns >= 100)
    assert fake.pings <= 2  # a busy machine may have been silent for so long


async def test_the_kernel_of_the_other_side_is_heard(http_site: HttpSite) -> None:
    async with http2_client(http_site.port, http_site.context()) as client:
        await client.get("/echo")
        assert host_silent_s(client.writer.transport) < HOST_SILENT_S / 2  # type: ignore[arg-type]
