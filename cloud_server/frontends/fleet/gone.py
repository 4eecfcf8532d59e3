"""Runs work for a client that may leave before the work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tunnel.aio.http.exchange import Exchange
from tunnel.aio.sessions.incoming import GAVE_UP
from tunnel.core.wire.errors import Code, StreamClosed, StreamError
from tunnel.kubeapi.status import ApiError

T = TypeVar("T")


async def unless_gone(exchange: Exchange, work: Coroutine[Any, Any, T]) -> T:
    """Runs the work of an answer and returns its result; cancels the work when the client goes.

    Raises:
        StreamClosed: the client went first.
        ApiError, StreamError: what the work raised.
    """
    failures: list[ApiError | StreamError] = []
    results: list[T] = []

    async def guarded() -> None:
        try:
            results.append(await work)
        except (ApiError, StreamError) as error:
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
