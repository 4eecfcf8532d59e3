"""Joins two connections: what comes by one goes out by the other, its end and its reset too."""

from __future__ import annotations

import asyncio

from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import StreamError


async def join(one: Conn, other: Conn) -> None:
    """Carries bytes both ways until both directions have ended; a reset of one connection resets the other.

    Both are gone then, also when this is cancelled.
    """
    whole = False
    try:
        async with asyncio.TaskGroup() as directions:
            directions.create_task(_carry(one, other), name="one way")
            directions.create_task(_carry(other, one), name="the other way")
        whole = True
    except* StreamError:
        pass
    finally:
        for conn in (one, other):
            conn.close() if whole else conn.reset()


async def _carry(source: Conn, target: Conn) -> None:
    while data := await source.read():
        await target.write(data)
    await target.write_eof()
