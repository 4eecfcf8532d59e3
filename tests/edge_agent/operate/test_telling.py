"""What the box is reaches the server anew: in the session that there is, or by a new greeting where it is older."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cloud_server.agents.node_service import NodeService
from edge_agent.operate import telling as module
from edge_agent.operate.telling import Telling
from protos import tunnel_pb2
from tests.support.joined import Pair, joined
from tests.support.waits import eventually
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.features import NODE_SERVICE


class Server:
    """What it took, and whether it refuses."""

    def __init__(self) -> None:
        self.took: list[tunnel_pb2.Node] = []
        self.refusals = 0
        self._service = NodeService(self.took.append, self.accept)

    async def accept(self, incoming: IncomingStream) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OpenRefused("not now", Code.LIMIT_EXCEEDED)
        await self._service.accept(incoming)


@asynccontextmanager
async def telling(server: Server, features: frozenset[str]) -> AsyncIterator[tuple[Telling, list[str], Pair]]:
    greeted: list[str] = []
    async with joined(server.accept) as both:
        session = both.server  # the one that opens, in this pair
        session.core.features = features
        made = Telling(lambda: session, lambda: tunnel_pb2.Node(hostname="box"), lambda: greeted.append("hello"))
        running = asyncio.get_running_loop().create_task(made.run())
        try:
            yield made, greeted, both
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.02)
    monkeypatch.setattr(module, "RETRY_S", 0.02)


async def test_changes_that_come_together_are_told_once() -> None:
    server = Server()
    async with telling(server, frozenset({NODE_SERVICE})) as (made, greeted, _both):
        for _ in range(5):
            made.changed()
        await eventually(lambda: server.took)
        made.changed()
        await eventually(lambda: len(server.took) == 2)
    assert [node.hostname for node in server.took] == ["box", "box"]
    assert greeted == []


async def test_what_was_refused_is_told_later() -> None:
    server = Server()
    server.refusals = 2
    async with telling(server, frozenset({NODE_SERVICE})) as (made, _greeted, _both):
        made.changed()
        await eventually(lambda: server.took)
    assert server.refusals == 0


async def test_an_older_server_is_greeted_anew_for_what_must_arrive_and_not_for_facts() -> None:
    server = Server()
    async with telling(server, frozenset()) as (made, greeted, _both):
        made.changed()
        made.changed(must_arrive=True)
        await eventually(lambda: greeted)
        made.changed()
        await asyncio.sleep(0.1)
    assert greeted == ["hello"]
    assert server.took == []


async def test_an_older_server_is_not_greeted_anew_for_what_its_hello_said() -> None:
    async with telling(Server(), frozenset()) as (made, greeted, _both):
        made.for_hello()
        made.changed(must_arrive=True)
        await eventually(lambda: not made._woken.is_set() and not made._must_greet)
        await asyncio.sleep(0.1)
    assert greeted == []
