"""Carriers in memory that come and go under a session: cuts with resume, fencing, last words, ends in order."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from tests.support.joined import TARGET, echo, joined
from tests.support.memory_carrier import MemoryCarrier, carrier_pair
from tests.support.waits import eventually
from tunnel.aio.carriers.carrier import CarrierLost
from tunnel.aio.sessions import carrier_run
from tunnel.aio.sessions.carrier_run import CarrierRun
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.core.link import Link
from tunnel.core.path.allowance import FRAMES_BURST
from tunnel.core.wire.errors import Code, OpenRefused, RemoteProtocolError, SessionLost, SessionRefused
from tunnel.core.wire.handshake import encode_refusal
from tunnel.core.wire.limits import Timing


async def test_bytes_survive_many_cuts_in_order() -> None:
    blob = bytes(range(256)) * 4096 * 8  # 8 MiB

    async def source(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        await stream.write(blob)
        await stream.write_eof()

    async with joined(source) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        received = bytearray()
        cuts = 0
        while data := await stream.read(1 << 20):
            received += data
            if len(received) > (cuts + 1) * 200_000 and cuts < 30:
                cuts += 1
                await both.cut()
                both.connect()
        assert bytes(received) == blob
        assert cuts == 30


async def test_a_lost_link_is_told_to_the_caller_alone() -> None:
    """Both daemons log it with what they know of it; a second line would say the same."""
    lost: list[CarrierLost | None] = []

    async with joined(echo) as both:
        await both.cut()
        near, far = carrier_pair()
        running = both.runs.spawn("run", _note(lost, both.agent.run_carrier(near, both.server.core.last_received)))
        await asyncio.sleep(0)
        with capture_logs() as logs:
            far.close()
            await running
        assert not both.agent.attached
        assert [str(reason) for reason in lost] == ["agent: cut"]
        assert logs == []


async def test_a_silent_peer_is_given_up_with_that_reason() -> None:
    lost: list[CarrierLost | None] = []
    timing = Timing(suspect_after_s=0.1, dead_after_s=0.2)

    async with joined(echo, timing) as both:
        await both.cut()
        near, _ = carrier_pair()
        with capture_logs() as logs:
            async with asyncio.timeout(5):
                await _note(lost, both.agent.run_carrier(near, both.server.core.last_received))
        assert not both.agent.attached
        assert [str(reason) for reason in lost] == ["no sign of life for 0.2 s"]
        assert [entry for entry in logs if entry["log_level"] != "debug"] == []


async def test_a_peer_that_sends_more_than_it_pays_for_is_left_unread_and_ends_as_ever() -> None:
    async with joined(echo) as both:
        allowance = both.agent.core._streams.allowance
        allowance.received(FRAMES_BURST + 50, 0, both.agent.now())
        for _ in range(3):  # it is read on when its time has come
            (await both.server.open(TARGET, deadline_s=5)).reset()
        await eventually(lambda: both.agent.core.stream_count == 0)
        allowance.received(1_000_000, 0, both.agent.now())
        first = await both.server.open(TARGET, deadline_s=5)
        with pytest.raises(OpenRefused, match="no answer within the deadline"):
            await both.server.open(TARGET, deadline_s=0.2)
        assert both.agent.core.stream_count == 1, "the second OPEN lies unread"
        first.reset()
        async with asyncio.timeout(5):
            await both.cut()


async def _note(lost: list[CarrierLost | None], running: Awaitable[CarrierLost | None]) -> None:
    lost.append(await running)


async def test_a_run_that_is_over_is_not_kept_for_the_garbage_collector() -> None:
    """It would keep the gRPC call, and so a TCP connection."""
    async with joined(echo) as both:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await both.cut()
                both.connect()
            await both.cut()
            async with asyncio.timeout(5):
                while any(isinstance(held, CarrierRun) for held in gc.get_objects()):
                    await asyncio.sleep(0)
        finally:
            gc.enable()


async def test_new_carrier_fences_the_old_one() -> None:
    async with joined(echo) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        old = both.carriers
        both.connect()
        await stream.write(b"x")
        assert await stream.read() == b"x"
        assert old is not None
        with pytest.raises(Exception, match="c"):
            await old[0].write(b"late")
        assert both.agent.core.generation == both.server.core.generation == 2


async def test_peer_that_breaks_the_protocol_is_told_why() -> None:
    async with joined(echo) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        assert both.carriers is not None
        await both.carriers[0].write(b"\xff\xff garbage")
        error = await asyncio.shield(both.server.closed)
        assert isinstance(error, RemoteProtocolError)
        with pytest.raises(SessionLost):
            await stream.read()
        reason = await asyncio.shield(both.agent.closed)
        assert reason is not None
        assert reason.code is Code.PROTOCOL_ERROR
        assert "not an Envelope" in str(reason)


class Deaf(MemoryCarrier):
    """Takes nothing more, and still has something to say."""

    async def write(self, message: bytes) -> None:
        raise CarrierLost("the other side ended the call")


async def test_the_last_words_of_a_peer_that_takes_nothing_more_are_heard() -> None:
    async with joined(echo) as both:
        await both.cut()
        deaf, far = Deaf("server"), MemoryCarrier("agent")
        deaf.other, far.other = far, deaf
        running = both.runs.spawn("run", both.run(both.agent, deaf, both.server.core.last_received))
        await asyncio.sleep(0)
        both.agent.go_away(Code.SHUTTING_DOWN, "something to write")
        for _ in range(5):
            await asyncio.sleep(0)
        await far.write(encode_refusal(SessionRefused("revoked", Code.IDENTITY_REJECTED)))
        async with asyncio.timeout(5):
            reason = await asyncio.shield(both.agent.closed)
            await running
        assert isinstance(reason, SessionRefused)
        assert reason.text == "revoked"


async def test_a_peer_that_takes_nothing_more_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_run, "LAST_WORDS_S", 0.05)
    async with joined(echo) as both:
        await both.cut()
        deaf, far = Deaf("server"), MemoryCarrier("agent")
        deaf.other, far.other = far, deaf
        running = both.runs.spawn("run", both.run(both.agent, deaf, both.server.core.last_received))
        both.agent.go_away(Code.SHUTTING_DOWN, "something to write")
        async with asyncio.timeout(5):
            await running
        assert not both.agent.attached
        assert not both.agent.closed.done()


class Broken(MemoryCarrier):
    """Fails in a way that no carrier may."""

    async def write(self, message: bytes) -> None:
        raise ValueError("a message of 2 bytes is longer than 1")


def _explode(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError


@pytest.mark.parametrize("fault", ["receive_message", "next_packet"])
@pytest.mark.parametrize("going_away", [False, True])
async def test_a_fault_of_our_own_ends_the_session_on_both_sides(
    fault: str, going_away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(echo) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        monkeypatch.setattr(both.server.core, fault, _explode)
        if going_away:
            both.agent.go_away(Code.SHUTTING_DOWN, "agent stops")
        with capture_logs() as logs:
            await stream.write(b"x")
            with pytest.raises(SessionLost, match="internal error"):
                await stream.read()
            async with asyncio.timeout(5):
                reason = await asyncio.shield(both.agent.closed)
        assert isinstance(reason, SessionRefused)
        assert reason.code is Code.INTERNAL
        (entry,) = [entry for entry in logs if entry["log_level"] == "error"]
        assert entry["exc_info"]


async def test_a_message_that_the_carrier_will_not_take_ends_the_session() -> None:
    async with joined(echo) as both:
        await both.cut()
        broken, far = Broken("server"), MemoryCarrier("agent")
        broken.other, far.other = far, broken
        both.agent.go_away(Code.SHUTTING_DOWN, "something to write")
        with capture_logs() as logs:
            async with asyncio.timeout(5):
                await both.run(both.agent, broken, both.server.core.last_received)
                assert isinstance(await asyncio.shield(both.agent.closed), SessionLost)
        assert [entry["event"] for entry in logs] == ["a fault in this program ends the session"]
        with pytest.raises(CarrierLost):
            await far.read()


@pytest.mark.parametrize("steps", [0, 1, 5])
async def test_a_cancelled_run_closes_its_carrier_and_lets_the_session_wait(steps: int) -> None:
    async with joined(echo) as both:
        await both.cut()
        both.server.go_away(Code.SHUTTING_DOWN, "going away is not gone")
        near, far = carrier_pair()
        running = both.runs.spawn("run", both.run(both.server, near, both.agent.core.last_received))
        await asyncio.sleep(0)
        assert both.server.attached
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert both.server.core.link is Link.SUSPENDED
        with pytest.raises(CarrierLost):
            await far.write(b"is anyone there")


async def test_a_carrier_for_a_session_that_has_ended_is_closed() -> None:
    async with joined(echo) as both:
        both.agent.close()
        near, far = carrier_pair()
        assert "has ended" in str(await both.agent.run_carrier(near, 0))
        with pytest.raises(CarrierLost):
            await far.read()


async def test_orderly_end_after_going_away_closes_both() -> None:
    async with joined(echo) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        both.agent.go_away(Code.SHUTTING_DOWN, "agent stops")
        await stream.write(b"still works")
        assert await stream.read() == b"still works"
        with pytest.raises(OpenRefused) as caught:
            await both.server.open(TARGET, deadline_s=5)
        assert caught.value.code is Code.SHUTTING_DOWN
        await stream.aclose()
        async with asyncio.timeout(5):
            await both.agent.drained()
        await both.agent.finish(5.0)
        async with asyncio.timeout(5):
            assert isinstance(await asyncio.shield(both.server.closed), SessionLost)
        assert both.went_away == ["agent stops"]
