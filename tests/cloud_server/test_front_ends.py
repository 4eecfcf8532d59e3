"""The ways in, put together: what shares a socket, what is counted, and how all are told of a stop."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from h2.errors import ErrorCodes

from tests.cloud_server.test_daemon import config_of, open_server
from tests.support.konnectivity_client import connected

ANY_PORT = "127.0.0.1:0"


async def ask_connect(path: Path, authority: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head.partition(b"\r\n")[0]


async def test_connect_and_konnectivity_share_the_socket_and_say_the_same(tmp_path: Path) -> None:
    async with open_server(await config_of(tmp_path)):
        path = tmp_path / "cloud" / "c.sock"
        status = (await ask_connect(path, "box-9:22")).decode()
        async with connected(path) as client:
            call = await client.call()
            answer = await call.dial("box-9:22")
            assert answer.error
            assert status.startswith("HTTP/1.1 404 ")
            assert status.endswith(answer.error)


async def test_clients_of_konnectivity_are_told_of_a_stop(tmp_path: Path) -> None:
    async with open_server(await config_of(tmp_path)) as (server, _):
        async with connected(tmp_path / "cloud" / "c.sock") as client:
            await server.drain()
            await client.gone.wait()
            assert client.goaway == ErrorCodes.NO_ERROR


async def test_clients_are_counted_by_what_they_speak(tmp_path: Path) -> None:
    config = await config_of(tmp_path, metrics={"listen": ANY_PORT})
    async with open_server(config) as (server, _), connected(tmp_path / "cloud" / "c.sock") as client:
        await client.call()
        idle = await client.call()
        await idle.write(b"\xff")  # the server has seen all that was sent before when it answers this
        await idle.half_close()
        await idle.status()
        page = await metrics(server.ports["metrics"][0])
    assert page["longline_connections", 'listener="connect-unix"'] == 0
    assert page["longline_connections", 'listener="konnectivity"'] == 1
    assert page["konnectivity_network_proxy_server_grpc_connections", 'service_method="Proxy"'] == 1
    assert page["konnectivity_network_proxy_server_http_connections", ""] == 0


async def metrics(port: int) -> dict[tuple[str, str], float]:
    """The page: values by name and labels."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    found = re.findall(r"^([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)\s*$", page, re.MULTILINE)
    return {(name, labels): float(value) for name, labels, value in found}
