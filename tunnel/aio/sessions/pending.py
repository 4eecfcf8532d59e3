"""Opens a stream for a client that may give up first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tunnel.aio.sessions.stream import Stream

Gone = asyncio.Future[None] | Coroutine[Any, Any, None]
"""Is done when the client is gone. A future stays as it is; a coroutine runs in a task, whose end is waited for."""


async def open_unless_gone(
    opening: Coroutine[Any, Any, Stream], gone: Gone | None, scope: asyncio.Timeout | None = None
) -> Stream | None:
    """Waits for a stream to open, unless the client is gone first.

    Args:
        opening: is cancelled, and the dial at the far end with it, when nobody waits for it any more.
        gone: is done when the client is; None for one that does not go.
        scope: one without a deadline, that was not entered yet. Who sets its deadline ends the opening too.

    Returns:
        The stream; None when `gone` or the end of the scope came first.

    Raises:
        OpenRefused: from `opening`.
    """
    loop = asyncio.get_running_loop()
    # Without a deadline until the client is gone: what ends the opening then is what ends any wait at its deadline, and
    # cannot be mistaken for a cancellation from outside.
    scope = scope or asyncio.timeout(None)
    watch = loop.create_task(gone, name="front end: watch the client") if asyncio.iscoroutine(gone) else gone

    def give_up(_watch: asyncio.Future[None]) -> None:
        scope.reschedule(loop.time())

    stream: Stream | None = None
    try:
        async with scope:
            if watch is not None:
                watch.add_done_callback(give_up)
            try:
                stream = await opening
            finally:
                if watch is not None:
                    watch.remove_done_callback(give_up)
                if watch is not None and watch is not gone:
                    watch.cancel()
                    await asyncio.wait({watch})
    except BaseException as error:
        if stream is not None:  # nobody takes it any more
            stream.reset(text="the client gave up")
        if isinstance(error, TimeoutError) and scope.expired():
            return None
        raise
    return stream
