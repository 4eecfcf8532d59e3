"""An agent tells its box anew: taken whole and within its bounds, or not at all."""

from __future__ import annotations

import pytest

from cloud_server.agents import node_service
from cloud_server.agents.facts import facts_of
from cloud_server.agents.node_service import BURST, NodeService
from protos import tunnel_pb2
from tests.support.joined import joined
from tests.support.waits import eventually
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.wire.errors import Code, OpenRefused, StreamReset
from tunnel.core.wire.limits import MAX_FACTS, MAX_NODE_BYTES
from tunnel.core.wire.names import NODE
from tunnel.core.wire.target import ServiceTarget, TcpTarget


async def others(incoming: IncomingStream) -> None:
    raise OpenRefused(f"{incoming.target} is for others", Code.NO_SERVICE)


async def tell(session: TunnelSession, data: bytes) -> bytes:
    stream = await session.open(ServiceTarget(NODE), deadline_s=5)
    await stream.write(data)
    await stream.write_eof()
    return await stream.read()


async def test_what_came_whole_is_taken_and_all_else_is_left_to_others() -> None:
    took: list[tunnel_pb2.Node] = []
    async with joined(NodeService(took.append, others).accept) as both:
        node = tunnel_pb2.Node(hostname="box", labels={"site": "lyon"})
        assert await tell(both.server, node.SerializeToString()) == b""
        assert took == [node]
        with pytest.raises(OpenRefused, match="for others"):
            await both.server.open(TcpTarget("127.0.0.1", 1), deadline_s=5)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        bytes(MAX_NODE_BYTES + 1),
        tunnel_pb2.Node(facts=[tunnel_pb2.Fact(code="LL1")] * (MAX_FACTS + 1)).SerializeToString(),
        tunnel_pb2.Node(facts=[tunnel_pb2.Fact(code="no word")]).SerializeToString(),
        tunnel_pb2.Node(facts=[tunnel_pb2.Fact(code="LL1", text="x" * 513)]).SerializeToString(),
        tunnel_pb2.Node(hostname="x" * 1025).SerializeToString(),
    ],
)
async def test_what_breaks_a_bound_is_reset_and_changes_nothing(data: bytes) -> None:
    took: list[tunnel_pb2.Node] = []
    async with joined(NodeService(took.append, others).accept) as both:
        with pytest.raises(StreamReset) as reset:
            await tell(both.server, data)
        assert reset.value.code is Code.PROTOCOL_ERROR
        assert not both.server.closed.done()
    assert took == []


async def test_one_that_does_not_come_to_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_service, "READ_S", 0.05)
    async with joined(NodeService(lambda _node: None, others).accept) as both:
        stream = await both.server.open(ServiceTarget(NODE), deadline_s=5)
        await eventually(lambda: stream.error)
        assert stream.error is not None
        assert stream.error.code is Code.DEADLINE


async def test_too_many_are_refused() -> None:
    async with joined(NodeService(lambda _node: None, others).accept) as both:
        for _ in range(BURST):
            await tell(both.server, b"")
        with pytest.raises(OpenRefused) as refused:
            await tell(both.server, b"")
        assert refused.value.code is Code.LIMIT_EXCEEDED


def test_a_box_may_say_any_time() -> None:
    node = tunnel_pb2.Node(facts=[tunnel_pb2.Fact(code="LL1", since_s=2**63, until_s=7)])
    (fact,) = facts_of(node)
    assert (fact.since.year, fact.until is not None) == (9999, True)
    assert facts_of(None) == []
