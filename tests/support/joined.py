"""Two real sessions joined by carriers in memory, for tests of what runs over streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.memory_carrier import MemoryCarrier, carrier_pair
from tunnel.aio.process.clock import MONOTONIC, Clock
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.session import Session
from tunnel.core.wire.limits import Limits, Timing
from tunnel.core.wire.target import TcpTarget

TARGET = TcpTarget("10.0.0.1", 80)


class Pair:
    """An agent's and a server's session that share carriers."""

    def __init__(
        self, acceptor: Acceptor, timing: Timing | None = None, limits: Limits | None = None, clock: Clock = MONOTONIC
    ) -> None:
        self.went_away: list[str] = []
        self.sessions = [
            TunnelSession(
                Session(session_id=b"s" * 16, dialler=dialler, now=clock(), timing=timing, limits=limits),
                acceptor,
                peer,
                on_going_away=lambda _session, event: self.went_away.append(event.text),
                clock=clock,
            )
            for dialler, peer in ((True, "server"), (False, "agent"))
        ]
        self.agent, self.server = self.sessions
        self.runs = TaskOwner("runs")
        self.carriers: tuple[MemoryCarrier, MemoryCarrier] | None = None

    def connect(self) -> None:
        """A new carrier, as after Hello and Welcome."""
        self.carriers = carrier_pair()
        received = [session.core.last_received for session in self.sessions]
        for index, session in enumerate(self.sessions):
            self.runs.spawn(f"run {index}", self.run(session, self.carriers[index], received[1 - index]))

    async def run(self, session: TunnelSession, carrier: MemoryCarrier, received: int) -> None:
        """Run one side's session over a carrier of its own."""
        await session.run_carrier(carrier, received)

    async def cut(self) -> None:
        """Break the carrier, once it is in use, and wait until both sides know."""
        assert self.carriers is not None
        while not all(session.attached for session in self.sessions):
            await asyncio.sleep(0)
        self.carriers[0].close()
        while any(session.attached for session in self.sessions):
            await asyncio.sleep(0)


@asynccontextmanager
async def joined(
    acceptor: Acceptor, timing: Timing | None = None, limits: Limits | None = None, clock: Clock = MONOTONIC
) -> AsyncIterator[Pair]:
    """Connected sessions; `acceptor` answers the streams of both."""
    both = Pair(acceptor, timing, limits, clock)
    both.connect()
    try:
        yield both
    finally:
        for session in both.sessions:
            await session.aclose()
        await both.runs.aclose()


async def echo(incoming: IncomingStream) -> None:
    """An acceptor that connects to nothing and sends everything back."""
    stream = incoming.accept("10.0.0.1:80")
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()
