"""Sockets of a socket unit: a listener may have them again and again, and beside them its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tunnel.aio.process.handed import Handed
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener, ListenFailed
from tunnel.aio.sockets.unit_sockets import UnitSockets


async def echo(conn: Conn) -> None:
    while data := await conn.read():
        await conn.write(data)


def handed(sock: socket.socket, name: str = "autonomy") -> Handed:
    return Handed(name, os.dup(sock.fileno()))


async def test_a_listener_that_is_closed_is_opened_again_at_the_units_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        sockets = UnitSockets([handed(one)])
        for _ in range(2):
            listener = Listener("autonomy", echo, sockets=sockets)
            await listener.listen_tcp(f"127.0.0.1:{port}")
            assert listener.ports == [port]
            await listener.aclose()
        stranger = Listener("socks", echo, sockets=sockets)
        with pytest.raises(ListenFailed, match="in use"):
            await stranger.listen_tcp(f"127.0.0.1:{port}")
        sockets.close()


async def test_each_address_of_a_listener_takes_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.2", 0)) as two:
        sockets = UnitSockets([handed(one), handed(two)])
        with socket.create_server(("127.0.0.3", 0)) as free:
            port = free.getsockname()[1]
        opened = []
        for host, at in (("127.0.0.2", two.getsockname()[1]), ("127.0.0.1", one.getsockname()[1]), ("127.0.0.3", port)):
            listener = Listener("autonomy", echo, sockets=sockets)
            await listener.listen_tcp(f"{host}:{at}")
            assert listener.ports == [at]
            opened.append(listener)
        for listener in opened:
            await listener.aclose()
        sockets.close()


async def test_an_address_that_cannot_be_had_as_a_whole_costs_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.2", 0)) as taken:
        sockets = UnitSockets([handed(one)])
        addresses = [(int(socket.AF_INET), each.getsockname()) for each in (one, taken)]
        before = sum(1 for _ in Path("/proc/self/fd").iterdir())
        for _ in range(3):
            with pytest.raises(OSError, match="in use"):
                sockets.bind_tcp("autonomy", addresses)
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
        sockets.close()


@pytest.mark.parametrize(("addresses", "is_told"), [
    (["127.0.0.1:{port}"], False), (["[::1]:1", "127.0.0.1:1"], True), ([], True), (["localhost:1"], False),
])  # fmt: skip
def test_a_socket_at_none_of_the_addresses_is_told(addresses: list[str], is_told: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, capture_logs() as logs:
        port = one.getsockname()[1]
        sockets = UnitSockets([handed(one)])
        sockets.tell_unused("autonomy", [address.format(port=port) for address in addresses])
        sockets.close()
    assert bool(logs) is is_told
    assert all(f"127.0.0.1:{port}" in log["reason"] for log in logs)


def test_a_socket_of_another_name_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, capture_logs() as logs:
        sockets = UnitSockets([handed(one, "edge-agent.socket")])
        sockets.tell_unused("autonomy", [f"127.0.0.1:{one.getsockname()[1]}"])
        sockets.close()
    assert [log["reason"] for log in logs] == ["only those of autonomy are taken (FileDescriptorName=)"]
