"""An API that ends every watch at once is not asked again at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from httpx2 import MockTransport, Request, Response
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from cloud_server.kubernetes import watch_pace
from cloud_server.kubernetes.lightkube_access import LightkubeAccess
from cloud_server.kubernetes.objects import KubernetesObject, Node, Service
from tests.support.waits import eventually

LEAST_S = 0.2


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[tuple[float, str]]]:
    """When what was asked, of an API whose watches say nothing, by a user that watches nodes and services."""
    monkeypatch.setattr(watch_pace, "LEAST_S", LEAST_S)
    loop = asyncio.get_running_loop()
    seen: list[tuple[float, str]] = []

    def answer(request: Request) -> Response:
        seen.append((loop.time(), request.url.path))
        return Response(200, text="")

    config = KubeConfig.from_one(cluster=Cluster(server="http://api.example.com"), user=User())
    own = LightkubeAccess(AsyncClient(config, transport=MockTransport(answer), trust_env=False))

    async def watch(kind: type[KubernetesObject]) -> None:
        async for _ in own.watch(kind, "1", 240):
            pass

    watching = [loop.create_task(watch(kind)) for kind in (Node, Service)]
    yield seen
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)
    await own.aclose()


async def test_watches_of_a_kind_are_apart_and_those_of_two_are_not(asked: list[tuple[float, str]]) -> None:
    began_s = asyncio.get_running_loop().time()
    await eventually(lambda: len(asked) >= 6)
    assert [path for _, path in asked[:2]] == ["/api/v1/nodes", "/api/v1/services"]
    assert asked[1][0] - began_s < LEAST_S
    of_nodes = [at_s for at_s, path in asked if path == "/api/v1/nodes"]
    assert all(after - before > 0.9 * LEAST_S for before, after in pairwise(of_nodes))
