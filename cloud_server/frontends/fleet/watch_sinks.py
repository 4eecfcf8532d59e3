"""Brings a watch to its client: as lines of a streamed answer, or as messages of a WebSocket, as browsers want it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from cloud_server.frontends.fleet.credentials import offered_protocols
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.gone import unless_gone
from tunnel.aio.http.http1 import Request
from tunnel.core.wire.errors import Code, StreamClosed, StreamError
from tunnel.kubeapi.encoding import JSON_TYPE, encode
from tunnel.kubeapi.status import ApiError, Json

_NOTHING = b" "
"""A blank to send when nothing happens. Between two values of JSON blanks mean nothing, in all clients; a line end
would be an event to some (python `kubernetes`).
"""
CLOSE_WAIT_S = 2.0
"""Seconds that a browser has for its own close."""


class Lines:
    """A watch as the answer to an ordinary request, with an event on each line."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def run(self, watching: Coroutine[Any, Any, None]) -> None:
        """Answers with what a watch sends to this.

        Raises:
            StreamError: the client is gone.
        """
        try:
            await self._exchange.start(200, [JSON_TYPE])
            await unless_gone(self._exchange, watching)
        finally:
            watching.close()
        await self._exchange.finish()

    async def send(self, events: Sequence[Json]) -> None:
        """Sends the events, one on each line; see `Sink`."""
        await self._exchange.send(b"".join(map(encode, events)))

    async def say_nothing(self) -> None:
        """Sends a blank, which shows that the watch is alive; see `Sink`."""
        await self._exchange.send(_NOTHING)


class Messages:
    """A watch over a WebSocket: each event is a text message, whatever protocol was chosen, as from a Kubernetes API
    server.
    """

    def __init__(self, exchange: Exchange, request: Request) -> None:
        """Checks the handshake.

        Raises:
            ApiError: 400, it is no handshake of a WebSocket.
        """
        # Not loaded for a server that nobody asks in this way.
        from tunnel.aio.http.websocket import key_of

        self._exchange = exchange
        self._key = key_of(request)
        if self._key is None:
            raise ApiError(400, "the WebSocket upgrade must have a Sec-WebSocket-Key and Sec-WebSocket-Version 13")
        self._protocol = next(iter(offered_protocols(request.headers)), None)

    async def run(self, watching: Coroutine[Any, Any, None]) -> None:
        """Upgrades the connection and sends what a watch sends to this; the connection is used up then.

        Raises:
            StreamError: the client is gone.
        """
        from tunnel.aio.http.websocket import WebSocket, accept_headers

        assert self._key is not None
        try:
            conn = await self._exchange.take_over(accept_headers(self._key, self._protocol))
            self._websocket = WebSocket(conn)
            await self._while_open(watching)
        finally:
            watching.close()

    async def send(self, events: Sequence[Json]) -> None:
        """Sends the events, one in each message; see `Sink`."""
        for event in events:
            await self._websocket.send_text(encode(event).decode())

    async def say_nothing(self) -> None:
        """Does nothing, since the pings of the WebSocket show that the watch is alive; see `Sink`."""

    # Internal

    async def _while_open(self, watching: Coroutine[Any, Any, None]) -> None:
        failures: list[StreamError] = []

        async def guarded(work: Coroutine[Any, Any, None]) -> None:
            try:
                await work
            except StreamError as error:
                failures.append(error)

        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(guarded(watching), name="watch")
            left = tasks.create_task(guarded(self._until_closed()), name="watch socket")
            alive = tasks.create_task(guarded(self._websocket.keep_alive()), name="watch pings")
            await asyncio.wait({sending, left, alive}, return_when=asyncio.FIRST_COMPLETED)
            gone = left.done()
            sending.cancel()
            alive.cancel()
            if not failures and not gone:
                await guarded(self._websocket.close())
                await asyncio.wait({left}, timeout=CLOSE_WAIT_S)
            left.cancel()
        if failures:
            raise failures[0]
        if gone:
            raise StreamClosed("the client went away", Code.CANCELLED)

    async def _until_closed(self) -> None:
        async for _ in self._websocket.parts():
            pass  # a watch has no input: what comes is read, so that a close is seen


def sink_for(exchange: Exchange, request: Request) -> Lines | Messages:
    """Returns the sink that the client of a request wants its watch in.

    Raises:
        ApiError: 400, an upgrade to something else, or a broken one.
    """
    if request.upgrade is None:
        return Lines(exchange)
    if request.upgrade.lower() != "websocket":
        raise ApiError(400, "a watch can be upgraded to a WebSocket only")
    return Messages(exchange, request)
