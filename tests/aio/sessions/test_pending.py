"""A client that leaves ends what was opened for it, at whatever moment."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from tests.support.joined import Pair, joined
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.pending import open_unless_gone
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("10.0.0.1", 80)


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    return


class Far:
    """An agent that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def accept(self, incoming: IncomingStream) -> None:
        self.asked.set()
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        incoming.accept("10.0.0.1:80")


async def test_an_opened_stream_is_handed_out() -> None:
    far = Far()
    far.answer.set()
    async with joined(far.accept) as pair:
        stream = await open_unless_gone(pair.server.open(TARGET, deadline_s=5), never())
        assert isinstance(stream, Stream)
        stream.reset()


async def test_a_refusal_goes_on() -> None:
    async def refuse(incoming: IncomingStream) -> None:
        incoming.refuse(Code.NOT_ALLOWED, "no")

    async with joined(refuse) as pair:
        with pytest.raises(OpenRefused, match="no"):
            await open_unless_gone(pair.server.open(TARGET, deadline_s=5), never())


async def opening(pair: Pair, far: Far, gone: asyncio.Event) -> asyncio.Task[Stream | None]:
    async def wait_gone() -> None:
        await gone.wait()

    task = asyncio.get_running_loop().create_task(open_unless_gone(pair.server.open(TARGET, deadline_s=5), wait_gone()))
    await far.asked.wait()
    return task


async def test_a_client_that_leaves_cancels_the_dial_at_the_agent() -> None:
    far, gone = Far(), asyncio.Event()
    async with joined(far.accept) as pair:
        task = await opening(pair, far, gone)
        gone.set()
        assert await task is None
        async with asyncio.timeout(5):
            await far.cancelled.wait()
        await pair.server.drained()


async def test_a_cancelled_front_end_cancels_the_dial_at_the_agent() -> None:
    far, gone = Far(), asyncio.Event()
    async with joined(far.accept) as pair:
        task = await opening(pair, far, gone)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await far.cancelled.wait()


async def test_an_answer_for_a_cancelled_front_end_is_reset() -> None:
    """Both in one step of the event loop: the stream must not stay open for nobody."""
    far = Far()
    async with joined(far.accept) as pair:
        task = await opening(pair, far, asyncio.Event())
        core = pair.server.core.stream(2)
        assert core is not None
        far.answer.set()
        while not core.opened:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await pair.server.drained()
            await pair.agent.drained()


async def test_a_stream_that_just_opened_for_a_cancelled_front_end_is_reset() -> None:
    """The cancellation comes while the watch is being ended: after the answer, before it was handed out."""

    async def accept(incoming: IncomingStream) -> None:
        incoming.accept("10.0.0.1:80")

    async with joined(accept) as pair:
        stream = await pair.server.open(TARGET, deadline_s=5)

        async def opened() -> Stream:
            await asyncio.sleep(0)
            return stream

        async def reluctant() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()
                await asyncio.sleep(0)

        task = asyncio.get_running_loop().create_task(open_unless_gone(opened(), reluctant()))
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await pair.server.drained()
            await pair.agent.drained()


async def test_a_connection_that_is_gone_already_cancels_the_dial() -> None:
    far = Far()
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with joined(far.accept) as pair:
        opening = pair.server.open(TARGET, deadline_s=5)
        closed.set_result(None)
        assert await open_unless_gone(opening, closed) is None
        await pair.server.drained()


async def test_both_at_once_is_an_open_stream() -> None:
    async def opened() -> Stream:
        return cast("Stream", "a stream")

    assert await open_unless_gone(opened(), at_once()) == cast("Stream", "a stream")
