"""Following a cluster whose API is away, forgets, hangs and comes back."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from cloud_server.kubernetes import follow
from cloud_server.kubernetes.access import (
    Changed,
    ClusterUnavailable,
    Deleted,
    NotPermitted,
    Snapshot,
    VersionTooOld,
)
from cloud_server.kubernetes.follow import FORGET_PODS_S, GRACE_S, PUT_AT_ONCE, WATCH_S, Follower
from cloud_server.kubernetes.objects import Key, KubernetesObject, Node, Pod
from cloud_server.routing.cluster import ClusterIndex
from tests.support.waits import eventually

pytestmark = pytest.mark.looptime

Step = Changed | Deleted | Exception


class FakeCluster:
    """Lists what it is told to; a watch sends what is put into `steps`, and hangs when that is empty."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.version = "1"
        self.list_fails: Exception | None = None
        self.list_hangs = False
        self.lists = 0
        self.watched_from: list[str] = []
        self.steps: asyncio.Queue[Step] = asyncio.Queue()
        self.pods: list[Pod] | None = []
        """None: they may not be seen."""
        self.pods_watched = asyncio.Event()
        """Ends a watch of them."""

    async def list_all(self, kind: type[KubernetesObject]) -> Snapshot:
        if kind is Pod and self.pods is None:
            raise NotPermitted("pods is forbidden")
        if kind is not Node:
            return Snapshot((self.pods or []) if kind is Pod else [], "1")
        self.lists += 1
        if self.list_hangs:
            await asyncio.Event().wait()
        if self.list_fails is not None:
            raise self.list_fails
        return Snapshot(self.nodes, self.version)

    async def watch(
        self, kind: type[KubernetesObject], version: str, timeout_s: int
    ) -> AsyncGenerator[Changed | Deleted, None]:
        assert timeout_s == WATCH_S
        if kind is Pod:
            await self.pods_watched.wait()
            raise NotPermitted("pods is forbidden")
        if kind is not Node:
            await asyncio.Event().wait()
        self.watched_from.append(version)
        while True:
            step = await self.steps.get()
            if isinstance(step, Exception):
                raise step
            yield step

    async def aclose(self) -> None:
        raise AssertionError("whoever made it closes it")


class Following:
    """A follower at work."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.index = ClusterIndex()

    def names(self) -> set[str]:
        """Which of three nodes the index has."""
        return {name for name in ("n1", "n2", "n3") if self.index.nodes_by_host(name)}

    async def until(self, *names: str) -> None:
        """Wait until the index has exactly these."""
        await eventually(lambda: self.names() == set(names), 60, f"{names} in the index")


@asynccontextmanager
async def following(*nodes: str) -> AsyncIterator[Following]:
    one = Following()
    one.cluster.nodes = [make_node(name) for name in nodes]
    task = asyncio.get_running_loop().create_task(Follower(one.cluster, one.index).run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.wait({task})


def make_node(name: str) -> Node:
    return Node(key=Key("", name), addresses=frozenset({ipaddress.ip_address("10.0.0.2")}))


async def test_changes_reach_the_index() -> None:
    async with following("n1") as one:
        await one.until("n1")
        one.cluster.steps.put_nowait(Changed(make_node("n2"), "2"))
        await one.until("n1", "n2")
        one.cluster.steps.put_nowait(Deleted(Key("", "n1"), "3"))
        await one.until("n2")
        assert one.cluster.lists == 1


async def test_after_410_all_is_listed_anew() -> None:
    async with following("n1") as one:
        await one.until("n1")
        one.cluster.nodes = [make_node("n3")]
        one.cluster.version = "9"
        one.cluster.steps.put_nowait(VersionTooOld())
        await one.until("n3")
        await eventually(lambda: one.cluster.watched_from == ["1", "9"], 60, "a watch from the new version")


async def test_what_is_known_stays_while_the_api_is_away() -> None:
    async with following("n1") as one:
        await one.until("n1")
        one.cluster.list_fails = ClusterUnavailable("connection refused")
        one.cluster.steps.put_nowait(ClusterUnavailable("connection reset"))
        await eventually(lambda: one.cluster.lists >= 5, 120, "it tries again")
        assert one.names() == {"n1"}
        one.cluster.nodes = [make_node("n2")]
        one.cluster.list_fails = None
        await one.until("n2")


async def test_an_api_that_is_away_is_not_asked_in_a_tight_loop() -> None:
    async with following() as one:
        one.cluster.list_fails = ClusterUnavailable("connection refused")
        await asyncio.sleep(600)
        assert 20 <= one.cluster.lists <= 200


async def test_a_list_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LIST_S", 6.0)
    async with following("n1") as one:
        one.cluster.list_hangs = True
        await eventually(lambda: one.cluster.lists == 1, 10, "it lists")
        one.cluster.list_hangs = False
        started_s = asyncio.get_running_loop().time()
        await one.until("n1")
        assert 5 < asyncio.get_running_loop().time() - started_s <= 6 + 5


async def test_others_have_their_turn_while_a_long_list_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    put_in_turn: list[int] = []

    async def others() -> None:
        nonlocal turns
        while len(put_in_turn) < 4 * PUT_AT_ONCE:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(ClusterIndex, "put", lambda _index, _one: put_in_turn.append(turns))
    beside = asyncio.get_running_loop().create_task(others())
    async with following(*(f"n{number}" for number in range(4 * PUT_AT_ONCE))) as one:
        await eventually(lambda: one.cluster.watched_from, 10, "all are taken in")
    await beside
    assert len(put_in_turn) == 4 * PUT_AT_ONCE
    assert max(map(put_in_turn.count, set(put_in_turn))) <= PUT_AT_ONCE


async def test_a_watch_that_went_dead_is_replaced_from_where_it_stood() -> None:
    async with following("n1") as one:
        await one.until("n1")
        one.cluster.steps.put_nowait(Changed(make_node("n2"), "7"))
        await one.until("n1", "n2")
        await asyncio.sleep(WATCH_S + GRACE_S + 1)
        assert one.cluster.watched_from == ["1", "7"]
        assert one.cluster.lists == 1


async def test_pods_that_may_not_be_seen_are_told_of_once_and_are_no_loss_to_the_rest() -> None:
    address = ipaddress.ip_address("10.88.1.37")
    with capture_logs() as lines:
        async with following("n1") as one:
            one.cluster.pods = [Pod(key=Key("shop", "one"), node="n1", addresses=(address,))]
            await one.until("n1")
            await eventually(lambda: one.index.pods_by_address(address), 10, "the pod is known")
            # The right is taken away: what was known goes out of date, and pods change their addresses often.
            pods, one.cluster.pods = one.cluster.pods, None
            one.cluster.pods_watched.set()
            await eventually(lambda: not one.index.may_read(Pod), 60, "it is refused")
            await asyncio.sleep(FORGET_PODS_S / 2)  # an API server that is just starting does no more than this
            assert one.index.pods_by_address(address)
            await eventually(lambda: not one.index.pods_by_address(address), 60, "the pod is forgotten")
            assert not one.index.may_read(Pod)
            await asyncio.sleep(600)
            assert one.names() == {"n1"}
            said = [line["event"] for line in lines if line["log_level"] == "warning"]
            assert [text for text in said if "pods are found by the endpoints of services" in text] == said
            assert len(said) == 1
            one.cluster.pods = pods
            one.cluster.pods_watched.clear()
            await eventually(lambda: one.index.pods_by_address(address), 60, "the right is back, and used")
            assert one.index.may_read(Pod)
