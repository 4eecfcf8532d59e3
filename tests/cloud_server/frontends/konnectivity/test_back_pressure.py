"""Who is slow stops only who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud_server.frontends.konnectivity import tunnel
from protos.konnectivity_pb2 import PacketType
from tests.cloud_server.frontends.konnectivity.served import (
    ECHO,
    NEVER_READS,
    SOURCE,
    Served,
    served,
)
from tests.support.konnectivity_client import ProxyClient, connected
from tests.support.waits import eventually, scaled_s
from tunnel.core.wire.limits import Limits

MIB = 1024 * 1024


def at(port: int) -> str:
    return f"10.0.0.1:{port}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made
        await eventually(lambda: made.streams == 0, what="all streams over")


@pytest.fixture
async def client(site: Served) -> AsyncIterator[ProxyClient]:
    async with connected(site.path) as made:
        yield made


async def test_a_stalled_endpoint_stops_its_client_and_nobody_else(site: Served, client: ProxyClient) -> None:
    stalled = await client.tunnel(at(NEVER_READS))
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await stalled.send_data(bytes(32768))
            written += 32768

    writing = asyncio.get_running_loop().create_task(write())
    other = await client.tunnel(at(ECHO))
    before = -1
    while before != written:  # until an echo passes in which nothing more is taken
        before = written
        for _ in range(20):
            await other.send_data(b"ping")
            assert await other.receive_data(4) == b"ping"
    assert 0 < written < 2 * MIB
    writing.cancel()
    await asyncio.wait({writing})
    await stalled.drop()


async def test_a_stalled_client_stops_its_endpoint_and_nobody_else(site: Served, client: ProxyClient) -> None:
    site.far.payload = bytes(64 * MIB)
    stalled = await client.tunnel(at(SOURCE))
    stalled.reading = False
    other = await client.tunnel(at(ECHO))
    before = -1
    while before != site.far.endpoints[0].sent:  # until echoes pass in which nothing more is taken
        before = site.far.endpoints[0].sent
        for _ in range(20):
            await other.send_data(b"ping")
            assert await other.receive_data(4) == b"ping"
    assert 0 < before < 2 * MIB
    await stalled.drop()
    assert await site.far.endpoints[0].ended == "connection_reset"


async def test_packets_shrink_for_a_slow_reader(
    site: Served, client: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "SLOW_S", -1.0)
    monkeypatch.setattr(tunnel, "QUICK_S", 0.0)
    site.far.payload = bytes(MIB)
    call = await client.tunnel(at(SOURCE))
    sizes = []
    while (packet := await call.receive()).type == PacketType.DATA:
        sizes.append(len(packet.data.data))
    assert sum(sizes) == MIB
    assert sizes[-3:-1] == [tunnel.MIN_BATCH_BYTES] * 2


async def test_no_packet_waits_for_more_than_the_endpoint_may_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GATHER_S", 3600.0)
    narrow = Limits(initial_window_bytes=16 * 1024, max_window_bytes=16 * 1024)
    async with served(tmp_path, limits=narrow) as site, connected(site.path) as client:
        site.far.payload = bytes(MIB)
        call = await client.tunnel(at(SOURCE))
        async with asyncio.timeout(scaled_s(10.0)):
            assert len(await call.receive_data(MIB)) == MIB
