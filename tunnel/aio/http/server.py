"""Serves TLS connections of either version of HTTP, as the client chose in the handshake, exchange by exchange."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

from tunnel.aio.http.http1 import Request
from tunnel.aio.http.http1_exchange import Http1Exchange
from tunnel.aio.http.long_heads import LongHeads
from tunnel.aio.http.serving import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, IsUser, Render, Serve, Served
from tunnel.aio.sockets.conn import Conn

if TYPE_CHECKING:
    from tunnel.aio.http.http2_server import Http2Server

ALPN_PROTOCOLS = ("h2", "http/1.1")
"""The protocols that a listener for this offers, best first."""


class HttpServer:
    """The HTTP connections of one front end."""

    def __init__(self, serve: Serve, render: Render, is_user: IsUser) -> None:
        """Serves nothing until `handle`. `serve` answers each exchange, `render` makes the answers to broken requests,
        and `is_user` tells users from strangers; see their types.
        """
        self._served = Served(serve, render, is_user)
        self.heads = LongHeads()
        """What long heads of all its connections may take."""
        self._http2: Http2Server | None = None
        """None until the first of its connections."""
        self._http1: set[Http1Exchange] = set()
        self._idle: set[asyncio.Timeout] = set()
        """The timeouts of HTTP/1.1 connections that are between two requests."""
        self._draining = False

    # Public

    async def handle(self, conn: Conn) -> None:
        """Serves a connection to its end.

        One of HTTP/1.1 is left open for the listener, which takes in what the client still sends: closed at once, the
        refusal of a request that is too long would be lost in a reset.

        Raises:
            StreamError: the connection broke.
        """
        if conn.transport.get_extra_info("alpn_protocol") == "h2":
            await (await self._http2_server()).handle(conn)
        else:
            await self._handle_http1(conn)

    def drain(self) -> None:
        """Makes clients send their next requests on other connections. Those that wait for an answer are told with it;
        by HTTP/1.1 the connections of the others are closed.
        """
        self._draining = True
        if self._http2 is not None:
            self._http2.drain()
        for exchange in self._http1:
            exchange.last = True
        now_s = asyncio.get_running_loop().time()
        for idle in self._idle:
            idle.reschedule(now_s)

    # Internal

    async def _http2_server(self) -> Http2Server:
        if self._http2 is None:
            module = await asyncio.to_thread(import_module, "tunnel.aio.http.http2_server")
            if self._http2 is None:  # no other connection was faster
                self._http2 = module.Http2Server(self._served, self.heads.strangers)
                if self._draining:
                    self._http2.drain()
        return self._http2

    async def _handle_http1(self, conn: Conn) -> None:
        trusted = self._served.is_user(conn.tls_peer)
        if trusted:
            conn.known()
        exchange = Http1Exchange(conn, self.heads, self._served.render, trusted=trusted)
        exchange.last = self._draining
        self._http1.add(exchange)
        try:
            request = await _next_request(exchange, asyncio.timeout(HEAD_TIMEOUT_S))
            while request is not None:
                await self._served.serve(conn, exchange, request)
                if exchange.last:
                    return
                idle = asyncio.timeout(IDLE_TIMEOUT_S)
                self._idle.add(idle)
                try:
                    request = await _next_request(exchange, idle)
                finally:
                    self._idle.discard(idle)
        finally:
            self._http1.discard(exchange)
            exchange.release()


async def _next_request(exchange: Http1Exchange, limit: asyncio.Timeout) -> Request | None:
    try:
        async with limit:
            return await exchange.next_request()
    except TimeoutError:
        return None
