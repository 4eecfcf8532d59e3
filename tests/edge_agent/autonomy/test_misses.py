"""What is said of what was asked for without the cloud and is not kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually

PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn"
CSINODES = "/apis/storage.k8s.io/v1/csinodes"
KUBELET = "application/vnd.kubernetes.protobuf,application/json"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"


def missing(node: Node) -> dict[str, str]:
    return {one["name"]: one["who"] for one in node.api.as_json()["missing"]}


async def test_what_is_asked_for_in_vain_is_named_until_the_cloud_is_back(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path) as node:
        await node.names(f"{PODS}&resourceVersion=0")
        assert (await node.ask("GET", f"{CSINODES}/n"))[0].status == 404
        assert not missing(node), "the API server has answered"
        await node.cut()
        for target in ("/api/v1/services?resourceVersion=0", "/api/v1/services?watch=1",
                       f"{CSINODES}/n?resourceVersion=0", LEASE, PODS):  # fmt: skip
            await node.ask("GET", target)
        assert missing(node) == {
            "services": "node", "csinodes.storage.k8s.io, metadata.name=n": "node"
        }, "and neither what is answered nor a lease, which is never kept"  # fmt: skip
        node.kube.gone = False
        await node.until_up()
        await eventually(lambda: not missing(node))


async def test_a_scope_that_was_lost_is_not_answered_and_named(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path) as node:
        await node.kube.put("pods", "one", "ns")
        assert await node.names(f"{PODS}&resourceVersion=0") == ["one"]
        await node.cut()
        (feed,) = node.api.feeds.all
        await node.api.keeper.drop(feed.scope.text())
        await node.restart()
        for more in ("&resourceVersion=0", "", "&watch=1&resourceVersion=0", "&watch=1&resourceVersion=100"):
            assert (await node.ask("GET", f"{PODS}{more}"))[0].status == 503, more
        assert missing(node) == {"pods, spec.nodeName=n": "node"}
        status, _ = await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", b"{}",
                                   content_type="application/merge-patch+json")  # fmt: skip
        assert status.status == 503


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_the_csinode_is_kept_for_a_kubelet_that_would_rather_have_protobuf(tmp_path: Path, method: str) -> None:
    async with node_and_kube(tmp_path) as node:
        body = {"metadata": {"name": "n", "resourceVersion": "7"}, "spec": {"drivers": []}}
        await node.kube.put("csinodes", "n", spec={"drivers": []})
        sent = b"" if method == "GET" else json.dumps({"kind": "CSINode", "apiVersion": "v1", **body}).encode()
        target = CSINODES if method == "POST" else f"{CSINODES}/n"
        assert (await node.ask(method, target, sent, accept=KUBELET))[0].status in (200, 201)
        await node.cut()
        await node.restart()
        head, said = await node.ask("GET", f"{CSINODES}/n?resourceVersion=0", accept=KUBELET)
        assert (head.status, said["spec"]) == (200, {"drivers": []})
