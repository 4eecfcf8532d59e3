"""Serves TLS connections of either version of HTTP, as the client chose in the handshake, exchange by exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from h2.errors import ErrorCodes

from cloud_server.frontends.http.exchange import Exchange
from cloud_server.frontends.http.http1_exchange import Http1Exchange
from cloud_server.frontends.http.http2_connection import Http2Connection
from cloud_server.frontends.http.http2_exchange import Http2Exchange, request_of
from cloud_server.frontends.http.http2_limits import PING_S, Http2Limits
from cloud_server.frontends.http.http2_stream import Http2Stream
from cloud_server.frontends.http.long_heads import LongHeads
from cloud_server.frontends.http.stranger import Stranger
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn, TlsPeer
from tunnel.aio.sockets.http1 import MAX_HEAD_BYTES, MAX_LONG_HEAD_BYTES, HttpError, Refusal, Request
from tunnel.core.wire.errors import StreamError

ALPN_PROTOCOLS = ("h2", "http/1.1")
"""The protocols that a listener for this offers, best first."""
HEAD_TIMEOUT_S = 9.0
"""Seconds until the first request of a connection, which may still be anybody's; by HTTP/2 until the first that is a
user's. A listener ends whoever has not shown who they are within 10 (strangers.py), whatever they were answered.
"""
IDLE_TIMEOUT_S = 300.0
"""Seconds that a connection may be idle between two requests."""
MAX_STREAMS = 250
"""How many streams an HTTP/2 connection may have at once, as Go's servers have it: a client with more watches makes
another connection.
"""
MAX_TASKS = 2 * MAX_STREAMS
"""How many streams of a connection are served at once, counting those that were reset while they were served: a reset
ends them soon, not at once.
"""
TOO_MANY = 429
MAX_UNREAD_BYTES = 32 * 1024 * 1024
"""Bytes of answers that a connection has not read, beyond which it gets no further one: else a client that asks and
does not read would make us hold one on each stream. By HTTP/1 it has one, and 32 MiB are the nodes of 20,000 boxes.
"""
HTTP2_LIMITS = Http2Limits(
    max_streams=MAX_STREAMS,
    window_bytes=64 * 1024,
    head_bytes=MAX_HEAD_BYTES,
    heads_bytes=4 * MAX_LONG_HEAD_BYTES,
    first_s=HEAD_TIMEOUT_S,
    idle_s=IDLE_TIMEOUT_S,
    ping_s=PING_S,
)
"""The limits of a connection. A user may leave 16 MiB of bodies and 4 MiB of heads here; for strangers see stranger.py.
"""

Serve = Callable[[Conn, Exchange, Request], Awaitable[None]]
"""A function that answers one exchange of a connection. It may raise a StreamError when the client is gone."""
Render = Callable[[HttpError], Refusal]
"""A function that returns the answer to what is no request, or too long for one."""
IsUser = Callable[[TlsPeer], bool]
"""A function that returns whether the spiffe:// name in a client's certificate is a user's; the name is None when there
is no certificate. Boxes have certificates of the same authority, and are strangers here.
"""

_log = structlog.get_logger("cloud.http")


class HttpServer:
    """The HTTP connections of one front end."""

    def __init__(self, serve: Serve, render: Render, is_user: IsUser) -> None:
        """Serves nothing until `handle`. `serve` answers each exchange, `render` makes the answers to broken requests,
        and `is_user` tells users from strangers; see their types.
        """
        self._serve = serve
        self._render = render
        self._is_user = is_user
        self.heads = LongHeads()
        """What long heads of all its connections may take."""
        self._http2: set[Http2Connection] = set()
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
            await self._handle_http2(conn)
        else:
            await self._handle_http1(conn)

    def drain(self) -> None:
        """Makes clients send their next requests on other connections. Those that wait for an answer are told with it;
        by HTTP/1.1 the connections of the others are closed.
        """
        self._draining = True
        for connection in self._http2:
            connection.drain()
        for exchange in self._http1:
            exchange.last = True
        now_s = asyncio.get_running_loop().time()
        for idle in self._idle:
            idle.reschedule(now_s)

    # Internal

    async def _handle_http1(self, conn: Conn) -> None:
        trusted = self._is_user(conn.tls_peer)
        if trusted:
            conn.known()
        exchange = Http1Exchange(conn, self.heads, self._render, trusted=trusted)
        exchange.last = self._draining
        self._http1.add(exchange)
        try:
            request = await _next_request(exchange, asyncio.timeout(HEAD_TIMEOUT_S))
            while request is not None:
                await self._serve(conn, exchange, request)
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

    async def _handle_http2(self, conn: Conn) -> None:
        limits = HTTP2_LIMITS
        if self._is_user(conn.tls_peer):
            conn.known()
            limits = replace(limits, head_bytes=MAX_LONG_HEAD_BYTES)
        detached = conn.detach()
        tasks = TaskOwner("http2")

        def on_request(stream: Http2Stream) -> None:
            if len(tasks) >= MAX_TASKS or not stranger.admit(stream):
                stream.reset(ErrorCodes.REFUSED_STREAM)  # clients send it again by themselves
                return
            exchange = Http2Exchange(stream, conn.peer, trust, reads)
            work = self._serve_stream(conn, exchange, stream, reads)
            serving = tasks.spawn(f"stream {stream.id}", work)
            serving.add_done_callback(lambda _serving: stranger.left(stream))

        def reads() -> bool:
            return connection.unsent_bytes <= MAX_UNREAD_BYTES

        def trust() -> None:
            stranger.known()
            conn.known()
            connection.take_long_heads(MAX_LONG_HEAD_BYTES)

        connection = Http2Connection(detached.transport, conn.peer, limits, on_request)
        stranger = Stranger(self.heads.strangers, HEAD_TIMEOUT_S, connection.close)
        self._http2.add(connection)
        try:
            connection.start(detached.leftover, at_eof=detached.at_eof)
            await asyncio.shield(connection.done)
            await tasks.finished()  # all of them were told that their client is gone
        finally:
            self._http2.discard(connection)
            connection.close()
            await tasks.aclose()
            stranger.gone()

    async def _serve_stream(
        self, conn: Conn, exchange: Http2Exchange, stream: Http2Stream, reads: Callable[[], bool]
    ) -> None:
        try:
            try:
                if not reads():
                    raise HttpError(
                        "this connection has too many answers that it did not read: read them first", TOO_MANY
                    )
                request = request_of(stream)
            except HttpError as error:
                said = self._render(error)
                wait = [("retry-after", "1")] if error.status == TOO_MANY else []
                await exchange.respond(error.status, [("content-type", said.content_type), *wait], said.body)
                return
            await self._serve(conn, exchange, request)
        except StreamError as error:
            exchange.abort()
            _log.debug("stream ended", peer=conn.peer, stream=stream.id, reason=str(error))
        except BaseException:
            exchange.abort()
            raise


async def _next_request(exchange: Http1Exchange, limit: asyncio.Timeout) -> Request | None:
    try:
        async with limit:
            return await exchange.next_request()
    except TimeoutError:
        return None
