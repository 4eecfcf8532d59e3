"""A server of a few paths on real TLS, for clients of either version."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cloud_server.frontends.konnectivity.served import Served, served
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HttpError, Refusal, Request
from tunnel.aio.http.server import ALPN_PROTOCOLS, HttpServer
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.errors import StreamError

USER = "spiffe://longline/user/ann"
BIG = bytes(range(256)) * 16 * 1024


@dataclass
class HttpSite:
    """A running server."""

    server: HttpServer
    listener: Listener
    authority: Authority
    folder: Path
    seen: list[Request] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """How each `/quiet` and `/big` ended."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets `/quiet` finish."""

    @property
    def port(self) -> int:
        return self.listener.ports[0]

    def context(self, *, user: bool = False, uri: str = "") -> ssl.SSLContext:
        """A client's, with a certificate of a user or of this URI name, or without."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        if uri := USER if user else uri:
            issued = self.authority.issue(uris=[uri])
            context.load_cert_chain(*issued.write(self.folder, "client"))
        return context

    async def serve(self, _conn: Conn, exchange: Exchange, request: Request) -> None:
        self.seen.append(request)
        if request.headers.get("authorization") == "Bearer good":
            exchange.trust()
        match request.path:
            case "/quiet":
                await self._quiet(exchange)
            case "/big":
                await self._big(exchange)
            case "/later":
                await asyncio.sleep(0)
                await self._big(exchange)
            case "/body":
                body = await exchange.read_body(100_000)
                await exchange.respond(200, [("content-type", "text/plain")], b"%d" % len(body))
            case "/cut":
                await exchange.start(200)
                await exchange.send(b"half of")
                exchange.abort()
            case "/switch":
                await exchange.take_over([])
            case "/nothing":
                await exchange.respond(204)
            case _:
                await exchange.respond(200, [("X-Peer", exchange.peer)], request.target.encode())

    async def _quiet(self, exchange: Exchange) -> None:
        await exchange.start(200)
        await exchange.send(b"first\n")
        async with asyncio.TaskGroup() as tasks:
            gone = tasks.create_task(exchange.wait_client_gone())
            more = tasks.create_task(self.go_on.wait())
            await asyncio.wait({gone, more}, return_when=asyncio.FIRST_COMPLETED)
            self.ended.append("gone" if gone.done() else "whole")
            gone.cancel()
            more.cancel()
        if self.ended[-1] == "whole":
            await exchange.finish()

    async def _big(self, exchange: Exchange) -> None:
        try:
            await exchange.start(200)
            await exchange.send(BIG)
            await exchange.finish()
            self.ended.append("whole")
        except StreamError as error:
            self.ended.append(error.text)
            raise


def render(error: HttpError) -> Refusal:
    return Refusal("application/json", b'{"message":"%s"}' % error.text.encode())


@pytest.fixture
async def http_site(tmp_path: Path) -> AsyncIterator[HttpSite]:
    authority = Authority()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem.decode())
    context.load_cert_chain(*authority.issue(hosts=["127.0.0.1"]).write(tmp_path, "server"))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    made: list[HttpSite] = []

    async def serve(conn: Conn, exchange: Exchange, request: Request) -> None:
        await made[0].serve(conn, exchange, request)

    server = HttpServer(serve, render, lambda peer: peer.uri == USER)
    listener = Listener("site", server.handle)
    made.append(HttpSite(server, listener, authority, tmp_path))
    await listener.listen_tcp("127.0.0.1:0", context)
    yield made[0]
    await listener.aclose()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    """A front end for konnectivity, which has HTTP/2 to itself; nothing of its clients is left at the end."""
    async with served(tmp_path) as made:
        yield made
        await eventually(lambda: made.streams == 0 and made.listener.connections == 0, what="all over")
