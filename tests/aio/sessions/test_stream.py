"""The splice side of a stream: what a sink is told, and when."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from tests.support.joined import joined
from tests.support.waits import eventually
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("10.0.0.1", 80)


class Recorder:
    """A sink that takes what comes and notes the order of things."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.notes: list[str] = []
        self.data = bytearray()
        self.over = asyncio.Event()

    def readable(self) -> None:
        chunks = self.stream.receive_nowait()
        self.notes.append("taken")
        self.data += b"".join(chunks)
        self.stream.consumed(sum(map(len, chunks)))

    def eof(self) -> None:
        self.notes.append("eof")

    def writable(self) -> None:
        self.notes.append("writable")

    def ended(self, error: StreamError | None) -> None:
        self.notes.append(f"ended {error}")
        self.over.set()


async def test_the_end_is_told_after_the_last_bytes_were_taken() -> None:
    async def answer(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        assert await stream.read() == b""
        await stream.write(b"last words")
        await stream.write_eof()

    for _ in range(50):
        async with joined(answer) as both:
            stream = await both.server.open(TARGET, deadline_s=5)
            await stream.write_eof()
            # Everything has happened before the sink looks: bytes, their end, and the ack of our own end.
            while both.agent.core.stream_count:
                await asyncio.sleep(0)
            sink = Recorder(stream)
            stream.attach(sink)
            async with asyncio.timeout(5):
                await sink.over.wait()
            assert sink.data == b"last words"
            assert sink.notes[0] == "taken"
            assert sink.notes[-1] == "ended None"


async def test_bytes_that_were_read_but_not_returned_reach_the_sink() -> None:
    async def answer(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        await stream.write(b"head and body")
        await stream.write_eof()

    async with joined(answer) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        assert await stream.read(5) == b"head "
        sink = Recorder(stream)
        stream.attach(sink)
        stream.send_eof_nowait()
        async with asyncio.timeout(5):
            await sink.over.wait()
        assert sink.data == b"and body"


async def test_a_full_queue_asks_to_wait_and_says_when_to_go_on() -> None:
    async def slow(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        while await stream.read():
            await asyncio.sleep(0)

    async with joined(slow) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        sink = Recorder(stream)
        stream.attach(sink)
        while stream.send_nowait(bytes(65536)):
            pass
        while "writable" not in sink.notes:
            await asyncio.sleep(0)
        assert stream.send_nowait(b"more")
        stream.reset()


class Faulty(Recorder):
    """A sink that raises at its first bytes."""

    def readable(self) -> None:
        raise ZeroDivisionError


async def test_a_sink_that_raises_loses_its_stream_and_no_other() -> None:
    async def answer(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        while data := await stream.read():
            await stream.write(data)

    async with joined(answer) as both:
        sinks = []
        for kind in (Recorder, Faulty, Recorder):
            stream = await both.server.open(TARGET, deadline_s=5)
            sinks.append(kind(stream))
            stream.attach(sinks[-1])
        with capture_logs() as logs:
            for sink in sinks:
                sink.stream.send_nowait(b"x")
            async with asyncio.timeout(5):
                await sinks[1].over.wait()
                while not (sinks[0].data and sinks[2].data):
                    await asyncio.sleep(0)
        assert sinks[1].notes == ["ended internal error"]
        assert [entry["log_level"] for entry in logs] == ["error"]
        while both.agent.core.stream_count > 2:  # the far end hears of it
            await asyncio.sleep(0)
        assert both.server.attached


async def test_whoever_opened_it_may_hear_of_its_end_once() -> None:
    heard: list[str] = []

    async def answer(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        if incoming.target == TARGET:
            assert await stream.read() == b""
            await stream.aclose()
        else:
            stream.reset(Code.CONNECTION_RESET, "by the far end")

    async with joined(answer) as both:
        orderly = await both.server.open(TARGET, deadline_s=5)
        orderly.when_ended(lambda: heard.append(f"orderly {orderly.error}"))
        await orderly.aclose()
        await eventually(lambda: heard == ["orderly None"])
        by_peer = await both.server.open(TcpTarget("10.0.0.1", 81), deadline_s=5)
        by_peer.when_ended(lambda: heard.append(f"by peer: {by_peer.error}"))
        await eventually(lambda: heard[1:] == ["by peer: by the far end"])
        by_us = await both.server.open(TARGET, deadline_s=5)
        by_us.when_ended(lambda: heard.append(f"by us: {by_us.error}"))
        by_us.reset(text="enough")
        by_us.reset(text="again")
        assert heard[2:] == ["by us: enough"]
        by_us.when_ended(lambda: heard.append("late"))
        assert heard[3:] == ["late"]
