"""Carriers in memory that come and go under a session: cuts with resume, fencing, last words, ends in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from structlog.testing import capture_logs

from tests.support.joined import TARGET, echo, joined
from tests.support.memory_carrier import MemoryCarrier, carrier_pair
from tunnel.aio import carrier_run
from tunnel.aio.carrier import CarrierLost
from tunnel.aio.incoming import IncomingStream
from tunnel.core.errors import Code, OpenRefused, RemoteProtocolError, SessionLost, SessionRefused
from tunnel.core.handshake import encode_refusal
from tunnel.core.limits import Timing


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
    timing = Timing(suspect_after_s=0.1, dead_after_s=0.15)

    async with joined(echo, timing) as both:
        await both.cut()
        near, _ = carrier_pair()
        with capture_logs() as logs:
            async with asyncio.timeout(5):
                await _note(lost, both.agent.run_carrier(near, both.server.core.last_received))
        assert not both.agent.attached
        assert [str(reason) for reason in lost] == ["no sign of life for 0.15 s"]
        assert [entry for entry in logs if entry["log_level"] != "debug"] == []


async def _note(lost: list[CarrierLost | None], running: Awaitable[CarrierLost | None]) -> None:
    lost.append(await running)


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
