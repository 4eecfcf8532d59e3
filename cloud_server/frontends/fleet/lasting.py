"""Ends what lasts at the fleet API and leads to no box, such as watches, when the caller may not go on.

What leads to a box is held at the door, as any other connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from cloud_server.trust.caller import Caller
from cloud_server.trust.standing import Objection, Standing
from tunnel.aio.http.exchange import Exchange
from tunnel.core.wire.errors import Code, OpenRefused, StreamError

LAST_WORD_S = 0.2
"""Seconds that a client may take to read why its answer is cut off."""


def not_allowed_any_more(why: str) -> OpenRefused:
    """Returns the error that ends what the rules have allowed until now."""
    return OpenRefused(f"not allowed any more: {why}", Code.STANDING_LOST)


class StandingLost(Exception):
    """A caller may not go on with a request. It holds the caller, and the reason."""

    def __init__(self, caller: Caller, why: OpenRefused) -> None:
        super().__init__(str(why))
        self.caller = caller
        self.why = why


@asynccontextmanager
async def standing_of(standing: Standing, caller: Caller, objection: Objection) -> AsyncIterator[None]:
    """Runs the block for as long as a caller may go on. `objection` decides that again when the rules change.

    Raises:
        StandingLost: the caller may not go on; what was done in the block was cancelled.
    """
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    lost: list[OpenRefused] = []

    def end(why: OpenRefused) -> None:
        lost.append(why)
        limit.reschedule(loop.time())

    try:
        hold = standing.hold(caller, end, objection)
    except OpenRefused as refused:
        raise StandingLost(caller, refused) from refused
    try:
        async with limit:
            yield
    except TimeoutError:
        if not lost:
            raise
        raise StandingLost(caller, lost[0]) from None
    finally:
        hold.release()


async def cut_off(exchange: Exchange, last_word: bytes) -> None:
    """Ends an answer that has begun so that nobody takes it for complete.

    The last word is sent before it if the client reads it within LAST_WORD_S.
    """
    with suppress(TimeoutError, StreamError):  # it does not read, or is gone
        async with asyncio.timeout(LAST_WORD_S):
            await exchange.send(last_word)
    exchange.abort()
