"""A stream that is being opened for a client that may give up first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tunnel.aio.sessions.stream import Stream


async def open_unless_gone(opening: Coroutine[Any, Any, Stream], gone: Coroutine[Any, Any, None]) -> Stream | None:
    """Wait for a stream to open; None, and the dial at the agent is cancelled, when `gone` returns first.

    Raises:
        OpenRefused: from `opening`.
    """
    loop = asyncio.get_running_loop()
    opened = loop.create_task(opening, name="front end: open")
    watch = loop.create_task(gone, name="front end: watch the client")
    try:
        await asyncio.wait({opened, watch}, return_when=asyncio.FIRST_COMPLETED)
        handed_out = opened.done()
        opened.cancel()
        watch.cancel()
        await asyncio.wait({opened, watch})
    except BaseException:
        # Cancelled, perhaps in the second wait: what was opened already has no taker either.
        watch.cancel()
        _drop(opened)
        raise
    if handed_out:
        return opened.result()
    _drop(opened)
    return None


def _drop(opened: asyncio.Task[Stream]) -> None:
    """Nobody takes the stream, whether it is open already or comes yet."""

    def reset(task: asyncio.Task[Stream]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().reset(text="the client gave up")

    opened.cancel()
    opened.add_done_callback(reset)
