"""The front end on a unix socket with one agent behind it, real sessions between: what the tests here share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloud_server.frontends.konnectivity.frontend import KonnectivityFrontend
from tests.support.joined import Pair, joined
from tunnel.aio.incoming import IncomingStream
from tunnel.aio.listener import Listener
from tunnel.aio.stream import Stream
from tunnel.core.errors import Code, OpenRefused, StreamError
from tunnel.core.target import Target, TcpTarget

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


class FakeAttempt:
    """A dial of `10.0.0.1:PORT` at box-7."""

    agent = "box-7"

    def __init__(self, router: FakeRouter, target: Target) -> None:
        self.target = target
        self._router = router

    async def open(self, *, principal: str, frontend: str, deadline_s: float) -> Stream:
        self._router.asked.append((self.target, principal, frontend, deadline_s))
        return await self._router.pair.server.open(self.target, principal=principal, deadline_s=deadline_s)


class FakeRouter:
    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.asked: list[tuple[Target, str, str, float]] = []

    def attempt(self, authority: str) -> FakeAttempt:
        host, _, port = authority.rpartition(":")
        if host != "10.0.0.1":
            raise OpenRefused(f"no agent for {host}", Code.UNKNOWN_AGENT)
        return FakeAttempt(self, TcpTarget(host, int(port)))


@dataclass
class Served:
    path: Path
    far: Far
    router: FakeRouter
    frontend: KonnectivityFrontend
    listener: Listener

    @property
    def streams(self) -> int:
        """Streams of the session that are not over."""
        return self.router.pair.server.core.stream_count


@asynccontextmanager
async def served(folder: Path, deadline_s: float = 5.0) -> AsyncIterator[Served]:
    far = Far()
    async with joined(far.accept) as pair:
        router = FakeRouter(pair)
        frontend = KonnectivityFrontend(router, deadline_s=deadline_s)
        listener = Listener("egress", frontend.handle)
        path = folder / "egress.sock"
        await listener.listen_unix(path)
        try:
            yield Served(path, far, router, frontend, listener)
        finally:
            await listener.aclose()
