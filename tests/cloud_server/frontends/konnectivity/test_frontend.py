"""The front end as a whole: many connections, and nothing left when they are gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protos.konnectivity_pb2 import PacketType
from tests.cloud_server.frontends.konnectivity.served import ECHO, NEVER_ANSWERS, Served, served
from tests.support.konnectivity_client import connected
from tests.support.waits import eventually


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


async def test_hundreds_of_tunnels_leave_nothing(site: Served) -> None:
    async def some(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(20):
            async with connected(site.path) as client:
                call = await client.tunnel(f"10.0.0.1:{ECHO}")
                await call.send_data(b"x")
                assert await call.receive_data(1) == b"x"
                match rng.choice(["close", "reset", "drop"]):
                    case "close":
                        await call.ask_to_close()
                        assert (await call.receive()).type == PacketType.CLOSE_RSP
                    case "reset":
                        await call.drop()

    await asyncio.gather(*map(some, range(20)))
    await eventually(lambda: site.streams == 0 and site.listener.connections == 0)
    assert not site.frontend._connections


async def test_clients_that_hang_up_while_an_agent_does_not_answer_leave_no_dial(site: Served) -> None:
    async def hang_up() -> None:
        async with connected(site.path) as client:
            await (await client.call()).ask(f"10.0.0.1:{NEVER_ANSWERS}")
            await eventually(lambda: site.far.dialling + site.far.given_up == 100)

    await asyncio.gather(*(hang_up() for _ in range(100)))
    await eventually(lambda: site.far.given_up == 100)
    assert site.far.dialling == 0
    assert site.streams == 0


async def test_each_tunnel_has_an_id_of_its_own(site: Served) -> None:
    async with connected(site.path) as one, connected(site.path) as two:
        ids = [(await client.tunnel(f"10.0.0.1:{ECHO}")).connect_id for client in (one, two, one, two)]
    assert len(set(ids)) == 4
