"""What listens is made equal to what is wanted, where one place may shut out another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud_server.listeners import Listeners, Place, Serving
from tests.support.ports import free_ports
from tests.support.waits import eventually
from tunnel.aio.process.parts import Parts
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listening import ListeningSockets


class Doors:
    """Listeners that say their name to whoever connects."""

    def __init__(self) -> None:
        self.parts = Parts()
        self.listeners = Listeners(self.parts, ListeningSockets())

    async def want(self, **places: Place) -> None:
        await self.listeners.apply(places, self._serving)

    async def up(self) -> None:
        await eventually(lambda: all(self.parts.up().values()))

    def _serving(self, name: str) -> Serving:
        async def handle(conn: Conn) -> None:
            await conn.write(name.encode())
            await conn.read()

        return Serving(handle)


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    made = Doors()
    yield made
    await made.parts.aclose()
    await made.listeners.aclose()


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_ports(2)


def at(port: int, host: str = "127.0.0.1") -> Place:
    return Place(address=f"{host}:{port}")


async def name_at(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    name = (await reader.read(100)).decode()
    writer.close()
    return name


async def nobody_at(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return False
    return True


async def test_two_that_change_places(doors: Doors, ports: list[int]) -> None:
    one, two = ports
    await doors.want(a=at(one), b=at(two))
    await doors.up()
    reader, writer = await asyncio.open_connection("127.0.0.1", one)
    assert await reader.read(100) == b"a"
    await doors.want(a=at(two), b=at(one))
    await doors.up()
    await eventually(lambda: doors.listeners.ports == {"a": [two], "b": [one]})
    assert (await name_at(one), await name_at(two)) == ("b", "a")
    assert doors.listeners.connections()["a"] >= 1, "the one that runs is counted, and goes on"
    writer.write(b"still there")
    await writer.drain()
    assert await reader.read() == b"", "until its handler ends it"
    writer.close()


async def test_from_one_address_to_all_and_back_on_the_same_port(doors: Doors, ports: list[int]) -> None:
    port = ports[0]
    for host in ("127.0.0.1", "0.0.0.0", "127.0.0.1"):
        await doors.want(a=at(port, host))
        await doors.up()
        assert await name_at(port) == "a"


async def test_back_to_where_it_listens_since_the_other_place_cannot_be_had(doors: Doors, ports: list[int]) -> None:
    port = ports[0]
    await doors.want(a=at(port))
    await doors.up()
    await doors.want(a=at(1, "192.0.2.1"))
    await eventually(lambda: "cannot assign" in " ".join(doors.parts.faults()))
    assert await name_at(port) == "a", "the old one stays"
    await doors.want(a=at(port))
    await doors.up()
    assert await name_at(port) == "a"
    assert len(doors.parts.all()) == 1
    await doors.want()
    await eventually(lambda: not doors.listeners.ports)
    assert await nobody_at(port)
    assert doors.parts.all() == []


async def test_wanted_no_more_while_it_is_being_opened(doors: Doors, ports: list[int]) -> None:
    port = ports[0]
    await doors.want(a=at(port))
    await doors.want()
    assert await nobody_at(port)
    assert doors.parts.all() == []


async def test_a_unix_socket_moves(doors: Doors, tmp_path: Path) -> None:
    await doors.want(a=Place(path=tmp_path / "one"))
    await doors.up()
    await doors.want(a=Place(path=tmp_path / "two"))
    await doors.up()
    await eventually(lambda: not (tmp_path / "one").exists())
    assert (tmp_path / "two").is_socket()
