"""Messages of a mebibyte that are made of as many parts as fit: they are refused before they are parsed."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.core.wire.test_shape import TOO_MUCH
from tests.support.cluster import Cluster, cluster
from tests.support.hostile_agent import HostileAgent
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange
from tunnel.core.wire.errors import Code
from tunnel.core.wire.limits import MIB

pytestmark = pytest.mark.e2e

MALLORY = "mallory"
TIMES = 20
MB = 1_000_000
ONE_PART = b"\x7a\xfa\xff\x3f" + bytes(MIB - 6)
"""A field that no build knows, as long as the message: it costs what it costs to be carried, and nothing to parse."""


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster() as one, Target("echo") as echo:
        one.configure({"limits": {"links_at_once": 1000}})  # each message costs its sender the link
        one.start()
        one.join(MALLORY)
        one.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        one.start_box(BOX)
        with one.dial(f"{BOX}:{echo.port}") as neighbour:
            yield one
            assert exchange(neighbour) == b"ping"


async def cost_s(made: Cluster, message: bytes) -> float:
    """The server's processor time for a session that sends this, in seconds."""
    server = psutil.Process(made.server.pid)
    before = sum(server.cpu_times()[:2])
    for _ in range(TIMES):
        async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as agent:
            await agent.greet()
            await agent.send_message(message)
            assert (await agent.refusal()).code is Code.PROTOCOL_ERROR
    return (sum(server.cpu_times()[:2]) - before) / TIMES


@pytest.mark.parametrize("name", ["empty frames", "kinds that take turns in one frame", "another handshake"])
async def test_they_cost_no_more_than_to_be_carried(made: Cluster, name: str) -> None:
    await cost_s(made, ONE_PART)  # what the first of all costs more
    before = made.server.rss_bytes()
    carried_s = await cost_s(made, ONE_PART)
    parts_s = await cost_s(made, TOO_MUCH[name][:MIB])
    # A look takes 2 ms, at the most; to parse them took 23 ms on a machine with nothing else to do, and 99 on others.
    assert parts_s < carried_s + 0.010, (parts_s, carried_s)
    assert made.server.rss_bytes() - before < 8 * MB
