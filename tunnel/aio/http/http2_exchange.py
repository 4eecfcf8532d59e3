"""Carries exchanges over HTTP/2: each is a stream, and many run at once on their connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from h2.errors import ErrorCodes

from tunnel.aio.http.http1 import HeaderItems, Headers, HttpError, Request, check_request, whole_body
from tunnel.aio.http.http2_stream import Http2Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, StreamClosed

LARGE_BYTES = 64 * 1024
"""The size of a part of an answer, such as the first list of a watch, above which it is large: as much on each stream
of a connection does no harm.
"""
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Http2Exchange:
    """An exchange that is one HTTP/2 stream; see `Exchange`. It is the stream's handler."""

    def __init__(
        self, stream: Http2Stream, peer: str, trust: Callable[[], None], reads: Callable[[], bool] = lambda: True
    ) -> None:
        """Takes a stream, and becomes its handler.

        Args:
            stream: the request.
            peer: for logs.
            trust: tells the stream's connection that a request was a user's.
            reads: whether the connection's client reads enough of its answers to get large parts of more.
        """
        self.peer = peer
        self.trust = trust
        self._reads = reads
        self.answered = False
        self._stream = stream
        self._body: deque[bytes] = deque()
        self._body_ended = False
        self._body_came = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._head_only = dict(stream.headers).get(b":method") == b"HEAD"
        stream.handler = self

    # Public

    async def read_body(self, max_bytes: int) -> bytes:
        """Returns the whole body of the request; see `Exchange.read_body`."""
        return await whole_body(self.read_chunk, max_bytes)

    async def read_chunk(self) -> bytes:
        """Waits for a part of the body and returns it; see `Exchange.read_chunk`."""
        while True:
            self._check()
            if self._body:
                chunk = self._body.popleft()
                self._stream.taken(len(chunk))
                if chunk:
                    return chunk
            elif self._body_ended:
                return b""
            else:
                self._body_came.clear()
                await self._body_came.wait()

    async def respond(self, status: int, headers: HeaderItems = (), body: bytes = b"") -> None:
        """Answers with a whole body; see `Exchange.respond`."""
        bodiless = status in _BODILESS
        lengths = [] if bodiless else [("content-length", str(len(body)))]
        await self.start(status, [*headers, *lengths])
        if not bodiless:
            await self.send(body)
        await self.finish()

    async def start(self, status: int, headers: HeaderItems = ()) -> None:
        """Begins a streamed answer; see `Exchange.start`."""
        self._check()
        self.answered = True
        fields = [(":status", str(status)), *headers, ("date", formatdate(usegmt=True))]
        self._stream.respond([(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields])

    async def send(self, chunk: bytes) -> None:
        """Sends a part of the body, and waits while the client is slow; see `Exchange.send`."""
        self._check()
        if not chunk or self._head_only:
            return
        if len(chunk) > LARGE_BYTES and not self._reads():
            raise StreamClosed("the client does not read its answers", Code.CANCELLED)
        self._all_sent.clear()
        self._stream.send(chunk)
        await self._all_sent.wait()
        self._check()

    async def finish(self) -> None:
        """Ends a streamed answer; see `Exchange.finish`."""
        self._check()
        self._stream.finish([])

    def abort(self) -> None:
        """Resets the stream, so that the client has an error in place of an end."""
        self._stream.reset(ErrorCodes.INTERNAL_ERROR)
        self.lost("the answer was cut off")

    async def take_over(self, headers: HeaderItems, reason: str = "") -> Conn:  # noqa: ARG002 - the interface
        """Refuses to switch protocols, since the connection is not this exchange's alone.

        Raises:
            HttpError: always.
        """
        raise HttpError("HTTP/2 has no upgrades: ask by HTTP/1.1")

    async def wait_client_gone(self) -> None:
        """Returns when the client has given the request up."""
        await asyncio.shield(self._gone)

    async def wait_lost(self) -> None:
        """Returns when the client has given the request up; see `Exchange.wait_lost`."""
        await asyncio.shield(self._gone)

    # Internal - called by the stream; none of this is called any more once it was finished or reset

    def data_received(self, data: bytes) -> None:
        """Keeps a part of the body that came; what nobody reads is bounded by the stream's window."""
        self._body.append(data)
        self._body_came.set()

    def eof_received(self) -> None:
        """Notes that the body is whole."""
        self._body_ended = True
        self._body_came.set()

    def sent(self) -> None:
        """Lets `send` go on, since all that was queued has gone to the client."""
        self._all_sent.set()

    def lost(self, text: str) -> None:
        """Notes that the client has given the request up, and wakes whoever waits for it."""
        if not self._gone.done():
            self._gone.set_result(text)
        self._body_came.set()
        self._all_sent.set()

    # Internal

    def _check(self) -> None:
        if self._gone.done():
            raise StreamClosed(self._gone.result(), Code.CANCELLED)


def request_of(stream: Http2Stream) -> Request:
    """Returns the head of a stream's request.

    Raises:
        HttpError: it has none that can be answered (CONNECT has no path), or none that can be read.
    """
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in stream.headers]
    pseudo = dict(item for item in fields if item[0].startswith(":"))
    if ":path" not in pseudo or ":method" not in pseudo:
        raise HttpError(f"{pseudo.get(':method')} is not served here", 405)
    headers = Headers(item for item in fields if not item[0].startswith(":"))
    return check_request(Request(pseudo[":method"], pseudo[":path"], headers), pseudo.get(":authority"))
