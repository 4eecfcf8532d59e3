"""Joins a client's connection and the stream that was opened for it, until both are done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tunnel.aio.sessions.splice import SpliceResult, splice
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code

Answer = Callable[[], Awaitable[bytes]]
"""Tells the client that it is connected, and returns what the client has sent behind its request."""


async def carry(stream: Stream, conn: Conn, answer: Answer | None = None, *, sent_bytes: int = 0) -> SpliceResult:
    """Answers the client, if it waits for that, carries bytes until both sides are done, and returns how it went.

    It takes both over, also when it is cancelled or the client leaves before it is answered: then both are reset.

    Args:
        stream: an open stream that nobody else reads from.
        conn: the connection of the client, or to a target.
        answer: answers the client; None for a client that waits for no answer.
        sent_bytes: how many of the client's first bytes have gone along with the open, and must not be sent again.
    """
    try:
        behind = await answer() if answer is not None else b""
        conn.skip(sent_bytes)
        detached = conn.detach()
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            stream.reset(Code.SHUTTING_DOWN, "the daemon is stopping")
        else:
            stream.reset(Code.CONNECTION_RESET, "the client left before it was answered")
        conn.reset()
        raise
    splicing = splice(stream, detached._replace(leftover=behind + detached.leftover))
    del behind, detached  # they may hold 64 KiB each, and this call lasts as long as the connection
    return await splicing
