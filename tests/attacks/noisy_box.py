"""A joined box in a process of its own that asks for as much as its server takes, until it is killed.

`python -m tests.attacks.noisy_box SERVER STATE KIND`, of the kinds below. It prints `begun`, and then a line with how
much it has sent so far, now and then.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import grpc.aio

from tests.core.frame_factory import FrameFactory as F
from tests.support.hostile_agent import HostileAgent
from tunnel.core.wire.errors import SessionRefused

TOLD_S = 0.2
_ENDED = (SessionRefused, EOFError, grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""How a link ends that the server has had enough of, also amid what is being sent."""
PAIRS = 32
"""The streams that are opened and ended in one packet."""


async def main(address: str, state: Path, kind: str) -> None:
    sent, told_s = 0, 0.0
    async for count in KINDS[kind](address, state):
        sent += count
        if time.monotonic() - told_s > TOLD_S:
            told_s = time.monotonic()
            print(sent, flush=True)


async def _on_a_link(address: str, state: Path, packet: Callable[[HostileAgent], bytes]) -> AsyncIterator[int]:
    """Sends packets over one link, as fast as the server reads them, and over the next when that is ended."""
    for number in itertools.count():
        try:
            async with HostileAgent(address, state) as agent:
                await agent.greet()
                if not number:
                    print("begun", flush=True)
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(_read(agent))
                    while not reading.done():
                        await agent.send_message(packet(agent))
                        yield 1
        except* _ENDED:
            pass
        yield 0


async def _read(agent: HostileAgent) -> None:
    with suppress(EOFError, SessionRefused, grpc.aio.AioRpcError):
        while True:
            await agent.frames()


def opens(address: str, state: Path) -> AsyncIterator[int]:
    """Opens streams to nothing that is exposed, and ends each at once."""

    def packet(agent: HostileAgent) -> bytes:
        first = 2 * PAIRS * agent.seq + 1
        ids = range(first, first + 2 * PAIRS, 2)
        return agent.packet([frame for one in ids for frame in (F.open(one), F.reset(one))])

    return _on_a_link(address, state, packet)


def pings(address: str, state: Path) -> AsyncIterator[int]:
    """Asks for life, with a message for each question."""
    return _on_a_link(address, state, lambda agent: agent.packet([F.ping(1)], seq=0))


async def links(address: str, state: Path) -> AsyncIterator[int]:
    """Makes link after link, each with a new session, and heeds no advice."""
    for number in itertools.count():
        with suppress(*_ENDED):
            async with HostileAgent(address, state) as agent, asyncio.timeout(10):
                if not number:
                    print("begun", flush=True)
                await agent.greet()
        yield 1


KINDS: dict[str, Callable[[str, Path], AsyncIterator[int]]] = {
    "opens": opens,
    "pings": pings,
    "links": links,
}

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
