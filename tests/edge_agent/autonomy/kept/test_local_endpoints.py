"""EndpointSlices as a node shows them when the cloud has taken its pods for not ready, and is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.kept import local_endpoints
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually

USER = "Bearer t"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices?resourceVersion=0"
SERVICES = "/api/v1/services?resourceVersion=0"
OLD, NEW = "10.0.0.1", "10.0.0.2"
Shown = tuple[str, bool]
"""The address of the endpoint, and whether it is ready."""


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    """With a Service of one pod, which the kubelet and a user have listed."""
    monkeypatch.setattr(local_endpoints, "SETTLE_S", 0.1)
    async with node_and_kube(tmp_path) as made:
        made.kube.users, made.kube.rights = {"t": "dns"}, {"dns": {"endpointslices", "services"}}
        await made.kube.put("pods", "one", "ns", status=status(OLD, ready=True))
        await made.kube.put("services", "web", "ns", spec={})
        await cloud_says(made, OLD, ready=True)
        await made.names("/api/v1/pods?resourceVersion=0")
        await made.names(SERVICES, authorization=USER)
        assert await shown(made) == (OLD, True)
        yield made


def status(address: str, *, ready: bool) -> dict[str, Any]:
    ips = [{"ip": address}] if address else []
    return {"podIPs": ips, "conditions": [{"type": "Ready", "status": str(ready)}]}


async def cloud_says(node: Node, address: str, *, ready: bool) -> None:
    uid = node.kube.objects["pods", "ns", "one"]["metadata"]["uid"]
    endpoint = {"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"uid": uid}}
    labels = {"kubernetes.io/service-name": "web"}
    made = await node.kube.put("endpointslices", "web-1", "ns", endpoints=[endpoint], addressType="IPv4")
    made["metadata"]["labels"] = labels


async def kubelet_says(node: Node, said: dict[str, Any]) -> int:
    uid = node.kube.objects["pods", "ns", "one"]["metadata"]["uid"]
    body = json.dumps({"metadata": {"uid": uid}, "status": said}).encode()
    head, _ = await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", body,
                             content_type="application/merge-patch+json")  # fmt: skip
    return head.status


async def shown(node: Node) -> Shown:
    _, said = await node.ask("GET", SLICES, authorization=USER)
    (endpoint,) = said["items"][0]["endpoints"]
    return endpoint["addresses"][0], endpoint["conditions"]["ready"]


async def back(node: Node) -> None:
    """The cloud is back, and what it says has come."""
    node.kube.gone = False
    await node.until_up()
    await shown(node)  # whoever asks brings a token, with which their lists are watched
    (feed,) = [feed for feed in node.api.feeds.all if feed.scope.resource == "endpointslices"]
    version = int(node.kube.objects["endpointslices", "ns", "web-1"]["metadata"]["resourceVersion"])
    await eventually(lambda: feed.is_live and feed.replica.version == version, 10)


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_pod_of_which_nothing_was_said_stays_ready_through_a_cut(node: Node, restarts: bool) -> None:
    """As with pods that are older than the agent, and of which there was nothing new to say."""
    await node.cut()
    if restarts:
        await node.restart()
    await cloud_says(node, OLD, ready=False)
    await back(node)
    assert await shown(node) == (OLD, True)


async def test_a_pod_that_is_not_started_again_yet_is_not_ready(node: Node) -> None:
    await node.cut()
    assert await kubelet_says(node, status("", ready=False)) == 202
    assert await shown(node) == (OLD, False)
    assert await kubelet_says(node, status(NEW, ready=True)) == 202
    assert await shown(node) == (NEW, True)


async def test_the_cloud_is_believed_when_it_says_the_same_and_not_before(node: Node) -> None:
    await node.cut()
    await cloud_says(node, OLD, ready=False)
    await back(node)
    await asyncio.sleep(0.3)
    assert await shown(node) == (OLD, True)
    await cloud_says(node, OLD, ready=True)
    await eventually(lambda: node.api.endpoints._believes)
    await cloud_says(node, OLD, ready=False)
    await back(node)
    assert await shown(node) == (OLD, False)


async def test_the_cloud_is_believed_in_the_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet tells it nothing: it is dead."""
    monkeypatch.setattr(local_endpoints, "MAX_SETTLE_S", 0.3)
    await node.cut()
    await cloud_says(node, OLD, ready=False)
    await back(node)
    await eventually(lambda: node.api.endpoints._believes)
    assert await shown(node) == (OLD, False)


async def test_what_the_cloud_says_is_not_taken_for_the_kubelets_word(node: Node) -> None:
    """An answer has what the kubelet has said of the pod, and the rest as the cloud has it."""
    await node.cut()
    await cloud_says(node, OLD, ready=False)
    await back(node)
    assert await kubelet_says(node, {"phase": "Running", "podIPs": [{"ip": OLD}]}) == 200
    assert await shown(node) == (OLD, True)
    assert await kubelet_says(node, status(OLD, ready=False)) == 200
    assert await shown(node) == (OLD, False)


async def test_a_service_that_publishes_unready_pods_leads_to_them(node: Node) -> None:
    """So that the pods of a StatefulSet find each other, which they may need to become ready."""
    await node.kube.put("services", "web", "ns", spec={"publishNotReadyAddresses": True})
    (feed,) = [feed for feed in node.api.feeds.all if feed.scope.resource == "services"]
    await eventually(lambda: feed.replica.version == node.kube.version)
    await node.cut()
    assert await kubelet_says(node, status(NEW, ready=False)) == 202
    assert await shown(node) == (NEW, True)
