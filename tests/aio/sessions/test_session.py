"""Sessions over carriers in memory: opening, bytes, resets, waiting for a carrier, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from structlog.testing import capture_logs

from tests.support.joined import TARGET, echo, joined
from tests.support.principals import user
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost, StreamClosed, StreamReset
from tunnel.core.wire.limits import Timing

SHORT = Timing(suspect_after_s=10.0, dead_after_s=15.0, resume_window_s=0.3)


async def test_echo_with_half_close() -> None:
    async with joined(echo) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        assert stream.resolved_address == "10.0.0.1:80"
        await stream.write(b"hello")
        await stream.write_eof()
        assert await stream.read() == b"hello"
        assert await stream.read() == b""
        with pytest.raises(StreamClosed):
            await stream.write(b"late")


async def test_both_sides_may_open() -> None:
    async with joined(echo) as both:
        for session in both.sessions:
            stream = await session.open(TARGET, deadline_s=5)
            await stream.write(b"x")
            assert await stream.read() == b"x"
            await stream.aclose()
        async with asyncio.timeout(5):
            await both.agent.drained()
            await both.server.drained()


async def test_reset_reaches_the_other_side_with_its_code() -> None:
    async def resetting(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        await stream.read()
        stream.reset(Code.CONNECTION_RESET, "reset by target")

    async with joined(resetting) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        await stream.write(b"x")
        with pytest.raises(StreamReset, match="reset by target") as caught:
            await stream.read()
        assert caught.value.code is Code.CONNECTION_RESET
        with pytest.raises(StreamReset):
            await stream.write(b"y")


async def test_cancelled_open_cancels_the_dial() -> None:
    dialling, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(incoming: IncomingStream) -> None:
        dialling.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with joined(slow) as both:
        opener = asyncio.ensure_future(both.server.open(TARGET, deadline_s=50))  # noqa: TID251 - cancelled below
        await dialling.wait()
        opener.cancel()
        async with asyncio.timeout(5):
            await cancelled.wait()
        assert both.server.core.stream_count == both.agent.core.stream_count == 0


async def test_open_deadline() -> None:
    async def never(incoming: IncomingStream) -> None:
        await asyncio.sleep(60)

    async with joined(never) as both:
        with pytest.raises(OpenRefused) as caught:
            await both.server.open(TARGET, deadline_s=0.1)
        assert caught.value.code is Code.DEADLINE


async def test_open_waits_for_the_link_to_come_back() -> None:
    async with joined(echo) as both:
        await both.cut()
        asyncio.get_running_loop().call_later(0.05, both.connect)
        stream = await both.server.open(TARGET, deadline_s=5)
        await stream.write(b"x")
        assert await stream.read() == b"x"


async def test_open_while_away_ends_at_its_deadline() -> None:
    async with joined(echo) as both:
        await both.cut()
        with pytest.raises(OpenRefused) as caught:
            await both.server.open(TARGET, deadline_s=0.1)
        assert caught.value.code is Code.AGENT_AWAY


async def test_resume_window_over_ends_streams_as_lost_and_is_said_once() -> None:
    with capture_logs() as logs:
        async with joined(echo, SHORT) as both:
            stream = await both.server.open(TARGET, deadline_s=5)
            await both.cut()
            with pytest.raises(SessionLost, match="did not come back"):
                await stream.read()
            assert isinstance(await asyncio.shield(both.server.closed), SessionLost)
            await asyncio.shield(both.agent.closed)
    said = [(line["peer"], line["streams"]) for line in logs if line["event"] == "the session is over"]
    assert sorted(said) == [("agent", 1), ("server", 1)]
    assert all("did not come back" in line["reason"] for line in logs if line["event"] == "the session is over")


async def test_stalled_reader_stops_its_writer_and_nobody_else() -> None:
    sent = 0

    async def endless(incoming: IncomingStream) -> None:
        nonlocal sent
        stream = incoming.accept()
        if incoming.principal.name != "endless":
            await echo_on(stream)
            return
        while True:
            await stream.write(bytes(65536))
            sent += 65536

    async def echo_on(stream: object) -> None:
        assert hasattr(stream, "read")
        while data := await stream.read():
            await stream.write(data)  # type: ignore[attr-defined]

    async with joined(endless) as both:
        stalled = await both.server.open(TARGET, deadline_s=5, principal=user("endless"))
        other = await both.server.open(TARGET, deadline_s=5)
        for _ in range(50):
            await other.write(b"x" * 1000)
            got = 0
            while got < 1000:
                got += len(await other.read())
        # a window and a queue's worth, and no more
        assert 256 * 1024 <= sent <= 1024 * 1024
        stalled.reset()


async def test_what_outlives_the_drain_is_reset_on_both_sides_and_the_session_ends_in_order() -> None:
    stopped = asyncio.Event()

    async def endless(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        try:
            while True:
                await stream.write(bytes(65536))
        except StreamReset:
            stopped.set()
            raise

    async def unanswered(incoming: IncomingStream) -> None:
        if incoming.principal.name == "unanswered":
            await asyncio.sleep(60)
        await endless(incoming)

    async with joined(unanswered) as both, asyncio.TaskGroup() as tasks:
        stream = await both.server.open(TARGET, deadline_s=5)
        pending = tasks.create_task(_refusal_of(both.server.open(TARGET, deadline_s=50, principal=user("unanswered"))))
        while both.agent.core.stream_count < 2:
            await asyncio.sleep(0)
        assert await stream.read()
        both.agent.go_away(Code.SHUTTING_DOWN, "agent stops")
        async with asyncio.timeout(2):  # with an endless stream, nothing was ever all delivered
            await both.agent.finish(5.0)
        assert stopped.is_set()
        with pytest.raises(StreamReset) as caught:
            await _read_out(stream)
        assert caught.value.code is Code.SHUTTING_DOWN
        assert (await pending).code is Code.SHUTTING_DOWN
        async with asyncio.timeout(5):
            assert isinstance(await asyncio.shield(both.server.closed), SessionLost)


async def _read_out(stream: Stream) -> None:
    while await stream.read():
        pass


async def _refusal_of(opening: Awaitable[Stream]) -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await opening
    return caught.value


async def test_a_cancelled_read_loses_nothing() -> None:
    async with joined(echo) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stream.read()
        await stream.write(b"after")
        assert await stream.read() == b"after"


async def test_a_fault_at_a_timer_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_now: float) -> None:
        raise ZeroDivisionError

    async with joined(echo, Timing(suspect_after_s=0.1, dead_after_s=0.2)) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        monkeypatch.setattr(both.server.core, "on_timer", explode)
        with capture_logs() as logs, pytest.raises(SessionLost, match="internal error"):
            async with asyncio.timeout(5):
                await stream.read()
        assert [entry["log_level"] for entry in logs if entry["log_level"] == "error"] == ["error"]


@pytest.mark.looptime
async def test_a_session_lives_by_the_clock_that_it_is_given() -> None:
    loop = asyncio.get_running_loop()

    def clock() -> float:
        return loop.time() + 5e6

    async with joined(echo, clock=clock) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        assert 0 <= stream.now() - clock() < 1
        lost_s = loop.time()
        await both.cut()
        with pytest.raises(SessionLost):
            await stream.read()
        assert loop.time() - lost_s == pytest.approx(Timing().resume_window_s, abs=1)


@pytest.mark.looptime
async def test_time_left_to_answer_is_the_openers() -> None:
    left_s: list[float] = []

    async def note(incoming: IncomingStream) -> None:
        left_s.append(incoming.deadline_s)
        incoming.refuse(Code.REFUSED, "enough")

    async with joined(note, clock=lambda: asyncio.get_running_loop().time() - 5e6) as both:
        with pytest.raises(OpenRefused):
            await both.server.open(TARGET, deadline_s=5)
    assert left_s == [pytest.approx(5, abs=0.1)]
