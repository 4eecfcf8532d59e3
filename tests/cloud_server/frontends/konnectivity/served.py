"""The front end on a unix socket with one agent behind it, real sessions between: what the tests here share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloud_server.frontends.konnectivity.frontend import KonnectivityFrontend
from cloud_server.opens.live import LiveOpen
from cloud_server.routing.claims import RoutePolicy
from cloud_server.routing.router import Router
from tests.support.doors import Doors, Records, who
from tests.support.joined import Pair, joined
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.limits import Limits
from tunnel.core.wire.target import Target, TcpTarget
from tunnel.core.wire.target_rule import TargetRule

REFUSES, NEVER_ANSWERS, ECHO, SINK, NEVER_READS, SOURCE, RESETS = 1, 3, 7, 9, 10, 19, 25
"""Ports, and what listens there."""


@dataclass
class Endpoint:
    """What one endpoint saw."""

    received: bytearray = field(default_factory=bytearray)
    sent: int = 0
    """What was taken from it."""
    ended: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """`eof`, or the label of the code of its reset."""


class Far:
    """The agent's side."""

    def __init__(self) -> None:
        self.payload = b""
        """What SOURCE sends."""
        self.endpoints: list[Endpoint] = []
        self.let_go = asyncio.Event()
        """Lets NEVER_READS read after all."""
        self.dialling = 0
        self.given_up = 0
        """Dials that were cancelled."""

    async def accept(self, incoming: IncomingStream) -> None:
        assert isinstance(incoming.target, TcpTarget)
        port = incoming.target.port
        if port == REFUSES:
            incoming.refuse(Code.REFUSED, "10.0.0.1:1: connection \N{BLACK STAR} refused")
        elif port == NEVER_ANSWERS:
            await self._never()
        else:
            await self._serve(incoming.accept(f"10.0.0.1:{port}"), port)

    async def _never(self) -> None:
        self.dialling += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.dialling -= 1
            self.given_up += 1

    async def _serve(self, stream: Stream, port: int) -> None:
        endpoint = Endpoint()
        self.endpoints.append(endpoint)
        try:
            if port == SOURCE:
                for start in range(0, len(self.payload), 65536):
                    await stream.write(self.payload[start : start + 65536])
                    endpoint.sent += 65536
                await stream.write_eof()
            if port == NEVER_READS:
                await self.let_go.wait()
            while data := await stream.read():
                endpoint.received += data
                if port == ECHO:
                    await stream.write(data)
                if port == RESETS:
                    stream.reset(Code.CONNECTION_RESET, "reset by the target")
            endpoint.ended.set_result("eof")
            await stream.write_eof()
        except StreamError as error:
            endpoint.ended.set_result(error.code.label)


class Site:
    """`box-7` and its session, as the front end's dials need them."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.asked: list[tuple[str, Target, str, str, float]] = []

    async def open(self, live: LiveOpen) -> Stream:
        """The last behind the door."""
        request, (live.agent, live.target) = live.request, live.permitted[0].route
        about = request.caller.name, request.frontend, round(request.deadline_s, 1)
        self.asked.append((live.agent, live.target, *about))
        return await self.pair.server.open(
            live.target, principal=request.caller.principal, deadline_s=request.deadline_s
        )

    def is_known(self, name: str) -> bool:
        return name == "box-7"

    def is_connected(self, name: str) -> bool:
        return True


@dataclass
class Served:
    path: Path
    far: Far
    site: Site
    frontend: KonnectivityFrontend
    listener: Listener
    records: Records

    @property
    def streams(self) -> int:
        """Streams of the session that are not over."""
        return self.site.pair.server.core.stream_count


@asynccontextmanager
async def served(folder: Path, deadline_s: float = 5.0, limits: Limits | None = None) -> AsyncIterator[Served]:
    far = Far()
    async with joined(far.accept, limits=limits) as pair:
        site = Site(pair)
        policy = RoutePolicy(agent="box-7", targets=(TargetRule.parse("10.0.0.1:*"),))
        doors = Doors(site, Router(site, [policy]))
        frontend = KonnectivityFrontend(doors.door, who(), deadline_s=deadline_s)
        listener = Listener("egress", frontend.handle)
        path = folder / "egress.sock"
        await listener.listen_unix(path)
        try:
            yield Served(path, far, site, frontend, listener, doors.records)
        finally:
            await listener.aclose()
