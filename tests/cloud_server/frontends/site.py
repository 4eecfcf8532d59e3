"""One agent behind front ends, with real sessions between: what the tests of the plain front ends share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cloud_server.opens.live import LiveOpen
from cloud_server.routing.router import Router
from tests.support.doors import Doors, Records
from tests.support.joined import Pair, joined
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget


@dataclass(kw_only=True)
class Asked:
    """One open, as the front end asked for it."""

    agent: str
    target: Target
    principal: str
    frontend: str
    deadline_s: float
    early_data: bytes = b""


@dataclass
class Site:
    """`box-7` is connected; what it does with a stream depends on the port."""

    pair: Pair
    asked: list[Asked] = field(default_factory=list)
    given_up: int = 0
    """Opens that were cancelled before the agent's answer."""
    dialling: int = 0

    def __post_init__(self) -> None:
        self.doors = Doors(self, Router(self))

    @property
    def records(self) -> Records:
        return self.doors.records

    async def open(self, live: LiveOpen) -> Stream:
        """The last behind the door."""
        request, (live.agent, live.target) = live.request, live.permitted[0].route
        self.asked.append(
            Asked(
                agent=live.agent,
                target=live.target,
                principal=request.caller.name,
                frontend=request.frontend,
                deadline_s=request.deadline_s,
                early_data=request.early_data,
            )
        )
        if live.agent != "box-7":
            raise OpenRefused(f"agent {live.agent} is not known here", Code.UNKNOWN_AGENT)
        return await self.pair.server.open(
            live.target,
            deadline_s=request.deadline_s,
            principal=request.caller.principal,
            early_data=request.early_data,
        )

    def is_known(self, name: str) -> bool:
        return name == "box-7"

    def is_connected(self, name: str) -> bool:
        return name == "box-7"

    async def accept(self, incoming: IncomingStream) -> None:
        if isinstance(incoming.target, ServiceTarget):
            await late_echo(incoming.accept("127.0.0.1:7" if incoming.target.name == "echo" else ""))
            return
        assert isinstance(incoming.target, TcpTarget)
        match incoming.target.port:
            case 1:
                incoming.refuse(Code.REFUSED, "127.0.0.1:1: connection refused")
            case 2:
                incoming.refuse(Code.NOT_ALLOWED, "not\r\nX-Injected: yes\r\n\r\nallowed \x00 \N{BLACK STAR}")
            case 3:
                await self._never()
            case 9:
                await late_echo(incoming.accept("somewhere"))
            case 21:
                await banner(incoming.accept("127.0.0.1:21"))
            case 25:
                stream = incoming.accept("127.0.0.1:25")
                await stream.read(1)
                stream.reset(Code.CONNECTION_RESET, "reset by the target")
            case _:
                await late_echo(incoming.accept("127.0.0.1:7"))

    async def _never(self) -> None:
        self.dialling += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.dialling -= 1
            self.given_up += 1


BANNER = b"SSH-2.0-box\r\n"


async def banner(stream: Stream) -> None:
    """Speak first, then echo."""
    await stream.write(BANNER)
    await echo(stream)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
    await stream.write_eof()


async def late_echo(stream: Stream) -> None:
    """Echo at once up to 100 bytes, and all the rest behind the client's end."""
    first = await stream.read(100)
    await stream.write(first)
    rest = bytearray()
    while data := await stream.read():
        rest += data
    await stream.write(bytes(rest))
    await stream.write_eof()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    made: list[Site] = []

    async def accept(incoming: IncomingStream) -> None:
        await made[0].accept(incoming)

    async with joined(accept) as pair:
        made.append(Site(pair))
        yield made[0]
