"""SOCKS5, word by word (RFC 1928 and 1929)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloud_server.frontends import socks as socks_module
from cloud_server.frontends.socks import SocksFrontend
from cloud_server.routing.claims import RoutePolicy
from cloud_server.routing.router import Router
from tests.cloud_server.frontends.site import Site, site
from tests.support.doors import Doors, who
from tests.support.waits import eventually
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.target_rule import TargetRule

TOKEN = "t0ken"
GREETING = b"\x05\x01\x02"
SIGNED_IN = b"\x05\x02\x01\x00"


def sign_in(name: str = "me", password: str = TOKEN) -> bytes:
    words = (name.encode(), password.encode())
    return b"\x01" + b"".join(bytes([len(word)]) + word for word in words)


def request(host: str, port: int, command: int = 1) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        where = bytes([3, len(host)]) + host.encode()
    else:
        where = bytes([1 if address.version == 4 else 4]) + address.packed
    return bytes([5, command, 0]) + where + port.to_bytes(2)


def reply(code: int) -> bytes:
    return bytes([5, code, 0, 1]) + bytes(6)


@asynccontextmanager
async def serving(deadline_s: float = 5.0) -> AsyncIterator[tuple[Site, int]]:
    async with site() as far:
        everything = RoutePolicy(
            agent="box-7", targets=(TargetRule.parse("10.0.0.0/8:*"), TargetRule.parse("[fd00::/16]:*"))
        )
        far.doors = Doors(far, Router(far, [everything]))
        frontend = SocksFrontend(far.doors.door, who({TOKEN: "ann"}), far.doors.logins, deadline_s=deadline_s)
        listener = Listener("socks", frontend.handle)
        await listener.listen_tcp("127.0.0.1:0")
        try:
            yield far, listener.ports[0]
        finally:
            await listener.aclose()


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count and (
            data := await asyncio.get_running_loop().sock_recv(self._sock, count - len(taken))
        ):
            taken += data
        return taken

    async def rest(self) -> bytes:
        return await self.take(1 << 20)

    def finish(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        async with asyncio.timeout(10):
            yield Client(sock)


@pytest.mark.parametrize(
    ("host", "agent", "target"),
    [("box-7", "box-7", "localhost:7"), ("10.1.2.3", "box-7", "10.1.2.3:7"), ("fd00::1", "box-7", "[fd00::1]:7")],
)
async def test_a_target_by_name_and_by_address(host: str, agent: str, target: str) -> None:
    async with serving() as (far, port):
        async with connected(port) as client:
            await client.send(GREETING + sign_in())
            assert await client.take(4) == SIGNED_IN
            await client.send(request(host, 7) + b"glued ")
            assert await client.take(10) == reply(0)
            await client.send(b"and more")
            client.finish()
            assert await client.rest() == b"glued and more"
        await eventually(lambda: far.records.of("end"))
    (asked,) = far.asked
    assert (asked.agent, str(asked.target), asked.principal, asked.frontend) == (agent, target, "ann", "socks")
    for record in far.records:
        assert (record["frontend"], record["who"], record["agent"]) == ("socks", "ann", agent)
    assert [record["event"] for record in far.records] == ["open", "end"]


async def test_a_name_says_in_whose_network() -> None:
    async with serving() as (far, port), connected(port) as client:
        await client.send(GREETING + sign_in("Box-7.longline") + request("127.0.0.1", 7))
        assert await client.take(14) == SIGNED_IN + reply(0)
    assert (far.asked[0].agent, str(far.asked[0].target)) == ("box-7", "127.0.0.1:7")


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [("box-7", 1, 5), ("box-7", 2, 2), ("box-8", 7, 4), ("192.0.2.1", 7, 4), ("no host\r\n", 7, 4), ("box-7", 0, 4)],
)
async def test_refusals_are_numbers_and_their_reason_is_recorded(host: str, port: int, code: int) -> None:
    async with serving() as (far, listening):
        async with connected(listening) as client:
            await client.send(GREETING + sign_in() + request(host, port))
            assert await client.take(4) == SIGNED_IN
            assert await client.rest() == reply(code)
        (record,) = far.records
        assert (record["event"], record["who"]) == ("refused", "ann")
        assert record["reason"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\x05\x01\x00", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x04\x01\x00\x50", b""),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (GREETING + sign_in(password="wrong"), b"\x05\x02\x01\x01"),
        (GREETING + sign_in(password=""), b"\x05\x02\x01\x01"),
        (GREETING + sign_in() + b"\x06\x01\x00\x01", SIGNED_IN),
        (GREETING + sign_in() + request("10.0.0.1", 7, command=2), SIGNED_IN + reply(7)),
        (GREETING + sign_in() + request("10.0.0.1", 7, command=3), SIGNED_IN + reply(7)),
        (GREETING + sign_in() + b"\x05\x01\x00\x02", SIGNED_IN + reply(8)),
    ],
)
async def test_what_is_not_served_is_said_and_dials_nothing(said: bytes, answer: bytes) -> None:
    async with serving() as (far, port), connected(port) as client:
        await client.send(said)
        client.finish()
        assert await client.rest() == answer
        assert far.asked == []
        strangers = answer == b"\x05\x02\x01\x01"
        assert [record["event"] for record in far.records] == ["login_refused"] * strangers


@pytest.mark.parametrize("length", range(0, len(GREETING + sign_in() + request("box-7", 7)), 3))
async def test_a_client_that_ends_in_the_middle(length: int) -> None:
    async with serving() as (far, port), connected(port) as client:
        await client.send((GREETING + sign_in() + request("box-7", 7))[:length])
        client.finish()
        assert (await client.rest()) in (b"", b"\x05\x02", SIGNED_IN)
        assert far.asked == []


async def test_one_byte_at_a_time() -> None:
    async with serving() as (_, port), connected(port) as client:
        for byte in GREETING + sign_in() + request("box-7", 7):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await client.take(14) == SIGNED_IN + reply(0)


async def test_a_client_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks_module, "HEAD_TIMEOUT_S", 0.1)
    async with serving() as (_, port), connected(port) as client:
        assert await client.rest() == b""
