"""Connections of clients that have not shown who they are: so many, so long, and never in the place of users."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from tests.support.pki import Authority
from tests.support.waits import eventually, sooner_than
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.strangers import StrangerLimits, Strangers, client_at, client_of
from tunnel.aio.sockets.tls_context import server_context


class Pool:
    """A pool whose members are letters at addresses: `a1` is the first at a."""

    def __init__(self, limits: StrangerLimits) -> None:
        self.pool = Strangers(limits)
        self.ended: list[str] = []

    def enter(self, *names: str) -> None:
        for name in names:
            self.pool.enter(name[0], lambda name=name: self.ended.append(name))  # type: ignore[misc]


async def test_the_oldest_of_an_address_makes_room_at_it() -> None:
    made = Pool(StrangerLimits(connections=10, per_address=2))
    made.enter("a1", "b1", "a2", "a3", "a4")
    assert made.ended == ["a1", "a2"]
    assert (len(made.pool), made.pool.ended) == (3, 2)


async def test_in_a_full_pool_the_address_with_the_most_makes_room() -> None:
    made = Pool(StrangerLimits(connections=4, per_address=3))
    made.enter("b1", "a1", "a2", "a3", "c1")
    assert made.ended == ["a1"]
    made.enter("d1", "e1")
    assert made.ended[:2] == ["a1", "a2"]
    assert len(made.pool) == 4


async def test_who_has_left_takes_no_place_and_is_not_ended() -> None:
    pool = Strangers(StrangerLimits(connections=1, within_s=0.05))
    ended: list[str] = []
    first = pool.enter("a", lambda: ended.append("a1"))
    first.left()
    first.left()
    pool.enter("a", lambda: ended.append("a2"))
    await eventually(lambda: ended)
    assert ended == ["a2"]
    assert (len(pool), pool.ended) == (0, 1)


def test_what_counts_as_one_client() -> None:
    assert client_of(("192.0.2.1", 5000)) == client_of(("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1"
    assert client_at("2001:db8::1") == client_at("2001:db8::ffff%eth0") == "2001:db8::/64"
    assert client_of("") == client_of(None) == ""
    assert client_at("box-7") == "box-7"


async def handler(conn: Conn) -> None:
    """Answers everything with itself; whoever says `password` is known."""
    while data := await conn.read():
        if data == b"password":
            conn.known()
        await conn.write(data)


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None, limits: StrangerLimits) -> AsyncIterator[Listener]:
    listener = Listener("front", handler, strangers=limits)
    await listener.listen_tcp("127.0.0.1:0", tls)
    try:
        yield listener
    finally:
        await listener.aclose()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, text: bytes) -> bytes:
        """Returns the answer; empty when the connection is gone."""
        with suppress(ConnectionError, RuntimeError):  # uvloop's word for a transport that is gone
            self.writer.write(text)
            return await self.reader.read(100)
        return b""


@pytest.fixture(params=["TLS", "plain"])
def contexts(request: pytest.FixtureRequest) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The server's and the clients' context."""
    if request.param == "plain":
        return None, None
    authority = Authority()
    server = authority.issue(hosts=["127.0.0.1"])
    material = ServerTls(certificate=server.certificate_pem, key=server.key_pem, client_ca=authority.pem)
    return server_context(material.load()), ssl.create_default_context(cadata=authority.pem.decode())


Contexts = tuple[ssl.SSLContext | None, ssl.SSLContext | None]


@asynccontextmanager
async def client(listener: Listener, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.ports[0], ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_users_stay_and_strangers_go_whatever_they_were_answered(contexts: Contexts) -> None:
    async with (
        listening(contexts[0], StrangerLimits(within_s=0.5)) as listener,
        client(listener, contexts[1]) as user,
        client(listener, contexts[1]) as stranger,
    ):
        assert listener.strangers is not None
        assert await user.say(b"password") == b"password"
        assert await stranger.say(b"guess") == b"guess"
        assert len(listener.strangers) == 1
        with sooner_than(5.0, "the end of a stranger"):
            assert await stranger.say(b"guess") in (b"", b"guess")
            await eventually(lambda: len(listener.strangers or "") == 0)
            assert await stranger.say(b"guess") == b""
        assert await user.say(b"hello") == b"hello"


async def test_the_newest_comes_in_and_no_user_goes(contexts: Contexts) -> None:
    limits = StrangerLimits(connections=2, per_address=2)
    async with listening(contexts[0], limits) as listener, client(listener, contexts[1]) as user:
        assert await user.say(b"password") == b"password"
        with capture_logs() as logs:
            async with (
                client(listener, contexts[1]) as first,
                client(listener, contexts[1]) as second,
                client(listener, contexts[1]) as third,
            ):
                assert await third.say(b"hello") == b"hello"
                assert await second.say(b"hello") == b"hello"
                assert await first.say(b"hello") == b""
        assert await user.say(b"hello") == b"hello"
        warned = [entry["reason"] for entry in logs if entry["log_level"] == "warning"]
        assert warned == ["a client that had not shown who it is made room for another"]
        await eventually(lambda: len(listener.strangers or "") == 0)
        await eventually(lambda: listener.connections == 1)
