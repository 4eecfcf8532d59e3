"""What a box that is not trusted may make the server keep of its statistics. The rest is in tests/compat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet import usage
from cloud_server.frontends.fleet.kubelet import KubeletReader
from cloud_server.frontends.fleet.server import wall_clock
from cloud_server.frontends.fleet.usage import UsageReader
from protos import tunnel_pb2
from tunnel.core.wire.names import KUBELET
from tunnel.kubeapi.listing import ListSplitter

BOX = AgentView(name="box-7", connected=True, node=tunnel_pb2.Node(services=[KUBELET]))
SAMPLE = {"cpu": {"usageNanoCores": 1}, "memory": {"workingSetBytes": 1}}


def pod(name: object, *containers: object) -> dict[str, Any]:
    return {
        "podRef": {"namespace": "shop", "name": name},
        "containers": [{"name": container, **SAMPLE} for container in containers],
    }


class Kubelet(KubeletReader):
    """A box that answers at once."""

    def __init__(self, pods: list[object]) -> None:
        self._pods = pods

    async def read_list(
        self, agent: str, path: str, splitter: ListSplitter, take: Callable[[bytes], None], max_bytes: int
    ) -> Mapping[str, object]:
        for item in splitter.feed(json.dumps({"node": SAMPLE, "pods": self._pods}).encode()):
            take(item)
        return splitter.frame()


@pytest.fixture
def pods() -> list[object]:
    """What the box answers with."""
    return []


async def read(pods: list[object]) -> usage.Usage:
    reader = UsageReader(Kubelet(pods), wall_clock)
    task = asyncio.get_running_loop().create_task(reader.run())
    await asyncio.sleep(0)
    try:
        return await reader.read(BOX)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_pods_without_anything_measured_are_not_kept(pods: list[object]) -> None:
    pods += [pod(f"empty-{number}") for number in range(10_000)]
    pods.append(pod("web", "nginx"))
    assert (await read(pods)).containers == {("shop", "web"): {"nginx": usage.Sample(1, 1)}}


async def test_containers_beyond_a_limit_are_left_out(pods: list[object]) -> None:
    pods += [pod(f"web-{number}", *map(str, range(10))) for number in range(1000)]
    kept = (await read(pods)).containers
    assert sum(map(len, kept.values())) == usage.MAX_CONTAINERS


@pytest.mark.parametrize("bad", ["x" * 254, "a\x1b[2J", 7, None, ["a"]])
@pytest.mark.parametrize("of_pod", [True, False])
async def test_a_pod_with_what_is_no_name_is_left_out(pods: list[object], bad: object, of_pod: bool) -> None:
    pods += [pod(bad, "nginx") if of_pod else pod("web", bad), pod("good", "nginx")]
    assert (await read(pods)).containers == {("shop", "good"): {"nginx": usage.Sample(1, 1)}}
