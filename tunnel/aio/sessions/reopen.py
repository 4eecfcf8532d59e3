"""Opens a stream at a peer whose process may be replaced meanwhile: then the one that took its place is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import OpenRefused

LEAST_S = 0.001
"""The seconds that a dial is given when its time is nearly over: 0 would stand for no deadline."""


async def open_until(
    give_up_s: float,
    session_for: Callable[[float], Awaitable[TunnelSession]],
    open_at: Callable[[TunnelSession, float], Awaitable[Stream]],
    *,
    once: bool,
) -> Stream:
    """Opens a stream at the session of the moment, and at the next one when that is lost before it answered.

    Args:
        give_up_s: the loop's time at which nothing is tried any more.
        session_for: waits for a session, until the loop's time that it is given; raises OpenRefused when there is none.
        open_at: opens the stream at a session, within so many seconds.
        once: whether bytes go along with the open. They may have reached the target of a session that was lost, and
            another one would get them twice.

    Raises:
        OpenRefused: what the last session, or the lack of one, said.
    """
    loop = asyncio.get_running_loop()
    while True:
        session = await session_for(give_up_s)
        try:
            return await open_at(session, max(LEAST_S, give_up_s - loop.time()))
        except OpenRefused:
            # By the session, not by the code: that may be the peer's own word, and then the same session would be asked
            # again and again without a pause.
            if not session.closed.done() or once or loop.time() >= give_up_s:
                raise
