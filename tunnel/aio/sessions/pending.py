"""A stream that is being opened for a client that may give up first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tunnel.aio.sessions.stream import Stream

Gone = asyncio.Future[None] | Coroutine[Any, Any, None]
"""Done when the client is. A future stays as it is; a coroutine runs in a task, whose end is waited for."""


async def open_unless_gone(opening: Coroutine[Any, Any, Stream], gone: Gone) -> Stream | None:
    """Waits for a stream to open; None, and the dial at the agent is cancelled, when `gone` is done first.

    Raises:
        OpenRefused: from `opening`.
    """
    loop = asyncio.get_running_loop()
    # Without a deadline until the client is gone: what ends the opening then is what ends any wait at its deadline, and
    # cannot be mistaken for a cancellation from outside.
    scope = asyncio.timeout(None)
    watch = gone if isinstance(gone, asyncio.Future) else loop.create_task(gone, name="front end: watch the client")

    def give_up(_watch: asyncio.Future[None]) -> None:
        scope.reschedule(loop.time())

    stream: Stream | None = None
    try:
        async with scope:
            watch.add_done_callback(give_up)
            try:
                stream = await opening
            finally:
                watch.remove_done_callback(give_up)
                if watch is not gone:
                    watch.cancel()
                    await asyncio.wait({watch})
    except BaseException as error:
        if stream is not None:  # nobody takes it any more
            stream.reset(text="the client gave up")
        if isinstance(error, TimeoutError) and scope.expired():
            return None
        raise
    return stream
