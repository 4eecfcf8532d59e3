"""A box that takes all that an exposed service sends, and acknowledges none of it: what is kept for it is counted."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest

from protos import tunnel_pb2 as pb
from tests.support.cluster import Cluster, cluster
from tests.support.fountain import fountain
from tests.support.hostile_agent import HostileAgent
from tests.support.ports import free_ports
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange
from tests.support.waits import eventually
from tunnel.core.wire.errors import Code, SessionRefused

pytestmark = pytest.mark.e2e

MALLORY = "mallory"
STREAMS = 512
(METRICS,) = free_ports(1)
GAUGE = 'longline_stream_memory_bytes{kind="queues"}'
MB = 1_000_000
FREED_S = 5.0
"""How long anything may stay that nobody can come back for."""


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster() as one, fountain() as port, Target("echo") as echo:
        one.configure(
            {
                "expose": [{"target": f"127.0.0.1:{port}", "name": "fountain", "agents": [MALLORY]}],
                "metrics": {"listen": f"127.0.0.1:{METRICS}"},
                "limits": {"agent_opens_at_once": 2 * STREAMS},
            }
        )
        one.start()
        one.join(MALLORY)
        one.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        one.start_box(BOX)
        with one.dial(f"{BOX}:{echo.port}") as neighbour:
            yield one
            assert exchange(neighbour) == b"ping"


@asynccontextmanager
async def taking_all(made: Cluster) -> AsyncIterator[HostileAgent]:
    """Its streams are open, with all credit that there is, and full; it reads what comes, and acknowledges nothing."""
    server = psutil.Process(made.server.pid)
    descriptors = server.num_fds()
    async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as agent:
        await agent.greet()
        frames = [pb.Frame(stream_id=2 * one + 1, open=opening()) for one in range(STREAMS)]
        await agent.send(*frames, ack=0)
        reading = asyncio.get_running_loop().create_task(read_on(agent))
        await eventually(lambda: server.num_fds() >= descriptors + STREAMS, 30, "all dials to be made")
        seen = [0]

        def fills() -> bool:
            seen.append(server.memory_info().rss)
            return len(seen) > 30 and seen[-1] - seen[-30] < MB

        await eventually(fills, 30, "all queues to fill")
        yield agent
        reading.cancel()
        await asyncio.wait({reading})


def opening() -> pb.Open:
    return pb.Open(service="fountain", deadline_ms=30_000, credit=2**30 - 1)


async def read_on(agent: HostileAgent) -> Code | None:
    """The code with which the server ends the session."""
    try:
        while True:
            await agent.frames()
    except SessionRefused as refused:
        return refused.code
    except EOFError:
        return None


def queued_bytes() -> float:
    """What the server says that it holds to be sent or acknowledged."""
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=10) as page:
        (line,) = (line for line in page.read().decode().splitlines() if line.startswith(GAUGE))
    return float(line.split()[-1])


async def test_it_is_counted_and_freed_when_nobody_can_come_back_for_it(made: Cluster) -> None:
    server = psutil.Process(made.server.pid)
    before, descriptors = server.memory_info().rss, server.num_fds()
    async with taking_all(made):
        held, counted = server.memory_info().rss - before, queued_bytes()
    print(f"{held / MB:.1f} MB held, {counted / MB:.1f} MB of them counted")
    # 20 kB for each stream and its socket, and what each socket gave before its stream asked how much it may, 128 kB.
    # All of it is counted, and within a session's 80 MiB.
    assert counted < 80 * 1024 * 1024
    assert held < counted + 25 * MB
    # Its process is gone: the next one has no use for the session, which ends.
    async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as anew:
        await anew.greet()
        await eventually(lambda: server.num_fds() < descriptors + 20, FREED_S, "its sockets to be closed")
        assert queued_bytes() < MB


async def test_one_that_speaks_and_never_acknowledges_is_ended(made: Cluster) -> None:
    server = psutil.Process(made.server.pid)
    descriptors = server.num_fds()
    async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as agent, asyncio.timeout(90):
        await agent.greet()
        await agent.send(pb.Frame(stream_id=1, open=opening()), ack=0)
        reading = asyncio.get_running_loop().create_task(read_on(agent))
        while not reading.done():
            with suppress(Exception):
                await agent.send(pb.Frame(ping=pb.Ping(nonce=1)), seq=0, ack=0)
            await asyncio.wait({reading}, timeout=1.0)
        assert reading.result() is Code.LIMIT_EXCEEDED
        await eventually(lambda: server.num_fds() < descriptors + 5, FREED_S, "its socket to be closed")
