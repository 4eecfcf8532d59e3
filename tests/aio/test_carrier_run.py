"""Carriers in memory that come and go under a session: cuts with resume, fencing, last words, ends in order."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.joined import TARGET, echo, joined
from tunnel.aio.incoming import IncomingStream
from tunnel.core.errors import Code, OpenRefused, RemoteProtocolError, SessionLost


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
