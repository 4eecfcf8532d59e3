"""Serves HTTP/2 connections, each stream an exchange. Loaded for the first of them, with a library of 1.5 MB."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog
from h2.errors import ErrorCodes

from tunnel.aio.http.http1 import MAX_HEAD_BYTES, MAX_LONG_HEAD_BYTES, HttpError
from tunnel.aio.http.http2_connection import Http2Connection
from tunnel.aio.http.http2_exchange import Http2Exchange, request_of
from tunnel.aio.http.http2_limits import PING_S, Http2Limits
from tunnel.aio.http.http2_stream import Http2Stream
from tunnel.aio.http.serving import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, Served
from tunnel.aio.http.stranger import Stranger
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import StreamError

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

_log = structlog.get_logger("cloud.http")


class Http2Server:
    """The HTTP/2 connections of one front end."""

    def __init__(self, served: Served, strangers: Budget) -> None:
        """Serves nothing until `handle`. `strangers` is the memory for all clients that have not shown who they are."""
        self._served = served
        self._strangers = strangers
        self._connections: set[Http2Connection] = set()
        self._draining = False

    # Public

    async def handle(self, conn: Conn) -> None:
        """Serves a connection to its end.

        Raises:
            StreamError: the connection broke.
        """
        limits = HTTP2_LIMITS
        if self._served.is_user(conn.tls_peer):
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
        stranger = Stranger(self._strangers, HEAD_TIMEOUT_S, connection.close)
        self._connections.add(connection)
        try:
            connection.start(detached.leftover, at_eof=detached.at_eof)
            if self._draining:
                connection.drain()
            await asyncio.shield(connection.done)
            await tasks.finished()  # all of them were told that their client is gone
        finally:
            self._connections.discard(connection)
            connection.close()
            await tasks.aclose()
            stranger.gone()

    def drain(self) -> None:
        """Makes clients send their next requests on other connections, also those that are still coming."""
        self._draining = True
        for connection in self._connections:
            connection.drain()

    # Internal

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
                said = self._served.render(error)
                wait = [("retry-after", "1")] if error.status == TOO_MANY else []
                await exchange.respond(error.status, [("content-type", said.content_type), *wait], said.body)
                return
            await self._served.serve(conn, exchange, request)
        except StreamError as error:
            exchange.abort()
            _log.debug("stream ended", peer=conn.peer, stream=stream.id, reason=str(error))
        except BaseException:
            exchange.abort()
            raise
