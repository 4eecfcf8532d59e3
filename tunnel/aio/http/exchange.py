"""A request and its answer, as a front end's handlers see them: they do not know which version of HTTP carries it."""

from __future__ import annotations

from typing import Protocol

from tunnel.aio.http.http1 import HeaderItems
from tunnel.aio.sockets.conn import Conn


class Exchange(Protocol):
    """A request that waits for its answer: `respond` (whole), `start`, `send`..., `finish` (streamed), or `take_over`.

    One task may answer, and beside it one may wait for the client to go.
    """

    @property
    def peer(self) -> str:
        """Returns the client's address, for logs and records."""
        ...

    @property
    def answered(self) -> bool:
        """Returns whether the answer has begun, so that no other can be given."""
        ...

    def trust(self) -> None:
        """Notes that the request is a user's: from here on this connection may have heads as long as users may send."""
        ...

    async def read_body(self, max_bytes: int) -> bytes:
        """Returns the whole body of the request.

        Raises:
            HttpError: it is longer than `max_bytes` (status 413), broken, or ends early.
            StreamError: the client is gone.
        """
        ...

    async def read_chunk(self) -> bytes:
        """Waits for a part of the request's body and returns it; `b""` is its proper end.

        Raises:
            HttpError: it is broken, or ends early.
            StreamError: the client is gone.
        """
        ...

    async def respond(self, status: int, headers: HeaderItems = (), body: bytes = b"") -> None:
        """Answers with a whole body; to a HEAD request only its length is sent.

        Raises:
            StreamError: the client is gone.
        """
        ...

    async def start(self, status: int, headers: HeaderItems = ()) -> None:
        """Begins a streamed answer.

        Raises:
            StreamError: the client is gone.
        """
        ...

    async def send(self, chunk: bytes) -> None:
        """Sends a part of the body, and waits while the client is slow.

        Raises:
            StreamError: the client is gone.
        """
        ...

    async def finish(self) -> None:
        """Ends a streamed answer, and so says that it was all there is.

        Raises:
            StreamError: the client is gone.
        """
        ...

    def abort(self) -> None:
        """Cuts the answer off, so that the client cannot take what it has for the whole."""
        ...

    async def take_over(self, headers: HeaderItems, reason: str = "") -> Conn:
        """Switches protocols, with a 101 of these headers.

        Returns:
            The connection, which is the caller's from here on; what the client sent behind its request is read first.

        Raises:
            HttpError: the connection carries other exchanges as well, as in HTTP/2; the request has a bad body.
            StreamError: the client is gone.
        """
        ...

    async def wait_client_gone(self) -> None:
        """Returns when the client has given the request up; for use beside a long answer."""
        ...

    async def wait_lost(self) -> None:
        """Returns when no answer reaches the client any more. By HTTP/1.1 one that only finished its own direction is
        still there.
        """
        ...
