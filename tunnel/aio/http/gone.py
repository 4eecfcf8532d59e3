"""Runs work for a client that may leave before the work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tunnel.aio.http.exchange import Exchange
from tunnel.core.wire.errors import GAVE_UP, Code, StreamClosed

T = TypeVar("T")


async def unless_gone(exchange: Exchange, work: Coroutine[Any, Any, T]) -> T:
    """Runs the work of an answer and returns its result; cancels the work when the client goes.

    The request's body must have been read: whoever waits for a client to go reads what it sends.

    Raises:
        StreamClosed: the client went first.
        Exception: what the work raised.
    """
    failures: list[Exception] = []
    results: list[T] = []

    async def guarded() -> None:
        try:
            results.append(await work)
        except Exception as error:  # noqa: BLE001 - it is raised below, as itself and not in a group
            failures.append(error)

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(guarded(), name="answer")
        gone = tasks.create_task(exchange.wait_client_gone(), name="client gone")
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel(GAVE_UP)
        gone.cancel()
    if failures:
        raise failures[0]
    if not results:
        raise StreamClosed(GAVE_UP, Code.CANCELLED)
    return results[0]
