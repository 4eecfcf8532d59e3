"""What boxes and users may ask for, with small limits: beyond it they wait or are refused, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.core.frame_factory import FrameFactory as F
from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused, connect_through
from tests.support.hostile_agent import HostileAgent
from tests.support.policies import everybody_admin
from tests.support.processes import run_command
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange
from tests.support.waits import eventually, sooner_than
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import LINKS_TOO_OFTEN, OPENS_TOO_FAST

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
MALLORY = "mallory"
USERS = ("ann", "bob", "eve")
LIMITS = {
    "user_opens_per_s": 2,
    "user_opens_at_once": 5,
    "agent_opens_per_s": 0.1,
    "agent_opens_at_once": 4,
    "links_per_min": 1,
    "links_at_once": 3,
}


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    with Target("echo") as target:
        yield target


@pytest.fixture
def made(echo: Target) -> Iterator[Cluster]:
    with cluster() as one:
        one.policy.write_text(everybody_admin(*USERS))
        one.configure({"limits": LIMITS})
        one.start()
        one.join(MALLORY)
        one.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        one.start_box(BOX)
        one.operator_tls()  # makes a file, which threads are to read
        yield one


def opened(made: Cluster, token: str, port: int) -> str:
    """Open a connection as the user of a token, and end it. Returns why it was refused; empty when it was not."""
    tls = made.operator_tls(certificate=False)
    shown = f"Proxy-Authorization: Bearer {token}\r\n"
    try:
        with connect_through(("127.0.0.1", made.connect_port), f"{BOX}:{port}", tls=tls, headers=shown) as sock:
            assert exchange(sock) == b"ping"
    except ConnectRefused as refused:
        return refused.reason
    return ""


async def test_a_user_who_opens_too_much_waits_and_is_refused_and_no_other(made: Cluster, echo: Target) -> None:
    ann, bob = (made.user_token(name) for name in ("ann", "bob"))
    seen = len(made.server.log_text())
    started_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(asyncio.to_thread(opened, made, ann, echo.port)) for _ in range(30)]
    took_s = time.monotonic() - started_s
    refused = [one.result() for one in asked if one.result()]
    assert len(refused) >= 30 - 5 - 2 * (took_s + 2.5), "five at once, two a second, and what waited for its turn"
    assert refused
    assert set(refused) == {f"{OPENS_TOO_FAST.code}: ann opens connections too fast: 2 a second are allowed for long"}
    with sooner_than(5.0, "another user's connection"):
        assert not opened(made, bob, echo.port)
    with made.dial(f"{BOX}:{echo.port}") as sock:  # and that of whoever nobody asks
        assert exchange(sock) == b"ping"
    records = made.server.log_text()[seen:].count(f'"code":"{OPENS_TOO_FAST.code}"')
    assert 0 < records < len(refused), "they are folded"
    # What a file says counts at once.
    made.configure({"limits": {**LIMITS, "user_opens_at_once": 1000}})
    run_command("cloud-server", "reload", "--config", str(made.config))
    assert not any(opened(made, ann, echo.port) for _ in range(12))


async def refusals(agent: HostileAgent, ids: range) -> list[str]:
    """What becomes of streams that a box opens to what nobody exposes: the text for each."""
    await agent.send(*(F.open(one) for one in ids))
    texts: dict[int, str] = {}
    async with asyncio.timeout(10):
        while len(texts) < len(ids):
            for frame in await agent.frames():
                if frame.WhichOneof("kind") == "reset":
                    texts[frame.stream_id] = frame.reset.text
    return list(texts.values())


async def test_a_box_gets_no_more_streams_by_another_session(made: Cluster) -> None:
    async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as agent:
        await agent.greet()
        first = await refusals(agent, range(1, 41, 2))
    assert sum(OPENS_TOO_FAST.code in text or "too fast" in text for text in first) == 16
    async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as agent:
        await agent.greet()
        assert all("too fast" in text for text in await refusals(agent, range(1, 9, 2)))


async def test_a_box_that_links_too_often_is_told_when_to_come_back(made: Cluster) -> None:
    refused: list[SessionRefused] = []
    started_s = time.monotonic()
    for _ in range(5):
        async with HostileAgent(made.tunnel_address, made.boxes[MALLORY].state) as agent:
            try:
                await agent.greet()
            except SessionRefused as error:
                refused.append(error)
    assert [error.code for error in refused] == [Code.LIMIT_EXCEEDED] * 2
    assert all(0 < error.retry_after_s <= 60 for error in refused)
    assert time.monotonic() - started_s > 7, "whoever does not heed it waits 4 s for each refusal"
    await eventually(lambda: LINKS_TOO_OFTEN.code in made.server.log_text())
    with sooner_than(30.0, "another box's start"):
        made.boxes[BOX].agent.kill()
        made.start_box(BOX)
