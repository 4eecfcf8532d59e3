"""A stream that is being opened for a client that may give up first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tunnel.aio.stream import Stream


async def open_unless_gone(opening: Coroutine[Any, Any, Stream], gone: Coroutine[Any, Any, None]) -> Stream | None:
    """Wait for a stream to open; None, and the dial at the agent is cancelled, when `gone` returns first.

    Raises:
        OpenRefused: from `opening`.
    """
    loop = asyncio.get_running_loop()
    opened = loop.create_task(opening, name="front end: open")
    watch = loop.create_task(gone, name="front end: watch the client")
    handed_out = False
    try:
        await asyncio.wait({opened, watch}, return_when=asyncio.FIRST_COMPLETED)
        handed_out = opened.done()
        return opened.result() if handed_out else None
    finally:
        opened.cancel()
        watch.cancel()
        outcome, _ = await asyncio.gather(opened, watch, return_exceptions=True)
        if isinstance(outcome, Stream) and not handed_out:
            outcome.reset(text="the client gave up")
