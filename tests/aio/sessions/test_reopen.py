"""tunnel.aio.sessions.reopen: another process is asked when the first is gone, and nobody twice because it says so."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.joined import TARGET, Pair, joined
from tests.support.waits import eventually
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.reopen import open_until
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost


async def accepting(incoming: IncomingStream) -> None:
    await incoming.accept().aclose()


async def opened(both: Pair, sessions: list[TunnelSession]) -> tuple[int, Stream]:
    """Opens at these, one after the other, and at the last for ever; returns how often one was asked for."""
    asked = 0

    async def session_for(_give_up_s: float) -> TunnelSession:
        nonlocal asked
        asked += 1
        assert asked < 100, "the same session is asked again and again"
        return sessions.pop(0) if len(sessions) > 1 else sessions[0]

    async def open_at(session: TunnelSession, deadline_s: float) -> Stream:
        return await session.open(TARGET, deadline_s=deadline_s)

    give_up_s = asyncio.get_running_loop().time() + 5
    stream = await open_until(give_up_s, session_for, open_at, once=False)
    return asked, stream


async def test_the_session_that_follows_a_lost_one_is_asked() -> None:
    async with joined(accepting) as old, joined(accepting) as new:
        old.server.close(SessionLost("started anew"))
        asked, stream = await opened(new, [old.server, new.server])
        assert asked == 2
        await stream.aclose()


async def test_a_peer_that_says_that_its_session_is_lost_is_asked_once() -> None:
    async with joined(accepting) as both:
        both.agent.go_away(Code.SESSION_LOST, "so it says")
        await eventually(lambda: both.server.going_away)
        with pytest.raises(OpenRefused, match="so it says"):
            await opened(both, [both.server])


async def test_one_that_refuses_each_open_so_is_asked_once() -> None:
    async def refusing(incoming: IncomingStream) -> None:
        incoming.refuse(Code.SESSION_LOST, "so it says")

    async with joined(refusing) as both:
        with pytest.raises(OpenRefused, match="so it says"):
            await opened(both, [both.server])
