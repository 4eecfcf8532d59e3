"""How long pieces of work hold the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def pieces_s() -> AsyncIterator[list[float]]:
    """Yields a list that gets the seconds of each turn of the event loop while the block runs.

    They are the processor's time: a busy machine makes each wait longer, and none of the work.
    """
    measured: list[float] = []

    async def watch() -> None:
        last_s = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            measured.append(now_s - last_s)
            last_s = now_s

    watching = asyncio.get_running_loop().create_task(watch())
    await asyncio.sleep(0)
    try:
        yield measured
    finally:
        watching.cancel()
