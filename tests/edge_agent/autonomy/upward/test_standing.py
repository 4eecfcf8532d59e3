"""A node whose certificate the API server refuses is answered as behind a cut, and goes on when it is taken again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edge_agent.autonomy.upward import standing
from edge_agent.autonomy.upward.passing import Unreached
from tests.edge_agent.autonomy.answering.test_callers import PROXY, SERVICES, as_, token
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually
from tunnel.core.wire.faults import NODE_REFUSED

PODS = "/api/v1/pods?resourceVersion=0"
CSR = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
JSON = "application/json"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with node_and_kube(tmp_path) as made:
        await made.kube.put("pods", "one", "ns")
        await made.kube.put("services", "web", "ns")
        made.kube.users, made.kube.rights = {token(PROXY): PROXY}, {PROXY: {"services"}}
        yield made


async def refuse(node: Node) -> None:
    """The API server refuses the node, and watches that run are cut off."""
    node.kube.refuses_node = True
    for conn in tuple(node.kube.connections):
        conn.reset()
    await node.api.standing.look()
    assert node.api.standing.is_refused


async def test_a_node_that_is_refused_is_answered_from_what_is_kept(node: Node) -> None:
    await node.names(PODS)
    async with node.watching(f"/api/v1/pods?watch=1&resourceVersion={node.kube.version}") as following:
        with capture_logs() as logs:
            await refuse(node)
        assert [line["code"] for line in logs if line["log_level"] == "warning"] == [NODE_REFUSED.code]
        head, said = await node.ask("GET", PODS)
        assert (head.status, [item["metadata"]["name"] for item in said["items"]]) == (200, ["one"])
        assert "does not take this node's certificate (401)" in (head.headers.get("warning") or "")
        assert (await node.ask("GET", "/api/v1/namespaces/ns/pods/one"))[0].status == 200
        assert (await node.ask("GET", "/api/v1/nodes?resourceVersion=0"))[0].status == 503, "that was never whole"
        patch, kind = b'{"status":{"phase":"Running"}}', "application/merge-patch+json"
        path = "/api/v1/namespaces/ns/pods/one/status"
        assert (await node.ask("PATCH", path, patch, content_type=kind))[0].status == 202
        told = await following()
        assert told is not None
        assert told["object"]["status"] == {"phase": "Running"}
        assert node.kube.writes == []
        node.kube.refuses_node = False  # it has another certificate
        await eventually(lambda: bool(node.kube.writes), 10)
        await eventually(lambda: all(feed.is_live for feed in node.api.feeds.all), 10)
        await node.kube.put("pods", "two", "ns")
        told = await following()
        assert told is not None, "its watch went through all of that"
        assert told["object"]["metadata"]["name"] == "two"
    assert node.api.as_json()["node_refused_since"] is None


async def test_the_refusal_itself_reaches_nobody_for_whom_there_is_an_answer(node: Node) -> None:
    """Also before anything but the very request has shown it."""
    await node.names(PODS)
    named = "/api/v1/namespaces/ns/pods/one"
    for target in ("/api/v1/pods", named):
        node.kube.refuses_node = True
        head, _ = await node.ask("GET", target)
        assert head.status == 200, target
        assert node.api.standing.is_refused
        node.kube.refuses_node = False
        await eventually(lambda: node.api.standing.is_up, 10)
    node.kube.refuses_node = True
    body = b'{"status":{}}'
    path = "/api/v1/namespaces/ns/pods/one/status"
    head, _ = await node.ask("PATCH", path, body, content_type="application/merge-patch+json")
    assert head.status == 503, "a kubelet asks again, where it would give up at 401"


async def test_what_only_the_api_server_can_do_is_answered_by_it(node: Node) -> None:
    """A kubelet asks for a certificate; what is kept of an earlier request is no answer."""
    await node.names(f"{CSR}?fieldSelector=metadata.name%3Dcsr-1&resourceVersion=0")
    assert not node.api.feeds.all
    await refuse(node)
    for method, target in (("POST", CSR), ("GET", CSR), ("GET", f"{CSR}?watch=1"), ("GET", f"{CSR}/csr-1")):
        assert (await node.ask(method, target, b"{}"))[0].status == 401, (method, target)
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"
    assert (await node.ask("PUT", lease, b"{}"))[0].status == 401
    await node.cut()
    for method, target in (("POST", CSR), ("GET", CSR), ("GET", f"{CSR}?watch=1"), ("GET", f"{CSR}/csr-1")):
        head, _ = await node.ask(method, target, b"{}")
        assert head.status == 503, "else a kubelet takes the API server for healthy, and ends after five minutes"
        assert head.headers.get("retry-after") is None


async def test_a_list_of_the_nodes_that_is_refused_first_is_not_given_up(node: Node) -> None:
    """Before anything else has shown that the node is refused: its watches are to go on."""
    await node.names(PODS)
    (feed,) = node.api.feeds.all
    node.kube.refuses_node = True
    with pytest.raises(Unreached, match="does not take"):
        await node.api._upstream_of("node").fetch(feed.scope, "", 1 << 20)
    assert feed.refused is None


async def test_others_are_answered_by_the_api_server_all_the_while(node: Node) -> None:
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]
    await refuse(node)
    await node.kube.put("services", "new", "ns")
    head, said = await node.ask("GET", "/api/v1/services", authorization=as_(PROXY))
    assert (head.status, len(said["items"]), head.headers.get("warning")) == (200, 2, None)


async def test_a_boot_with_a_certificate_that_is_over(node: Node) -> None:
    """The API server is reached, and refuses all that the kubelet would ask."""
    await node.names(PODS)
    status = {"token": token(PROXY), "expirationTimestamp": "2020-01-01T00:00:00Z"}
    answered = {"kind": "TokenRequest", "status": status}
    ask = ("POST", "/api/v1/namespaces/ns/serviceaccounts/default/token", json.dumps(answered).encode())
    assert (await node.ask(*ask, content_type=JSON))[0].status == 201
    node.kube.refuses_node = True
    await node.restart()
    assert await node.names(PODS) == ["one"]
    head, said = await node.ask(*ask, content_type=JSON)
    assert (head.status, said["status"]["expirationTimestamp"]) == (201, "2020-01-01T00:00:00Z")
    event = {"metadata": {"name": "e"}}
    head, _ = await node.ask("POST", "/api/v1/namespaces/ns/events", json.dumps(event).encode(), content_type=JSON)
    assert head.status == 202
    node.kube.refuses_node = False
    await eventually(lambda: any("events" in path for _, path, _ in node.kube.writes), 10)


async def test_a_connection_with_the_certificate_from_before_is_not_used_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "LOOK_FIRST_S", 60.0)
    await node.names(PODS)
    old = {id(line) for line in node.api._node._idle} | {id(line) for line in node.api._node._taken}
    await refuse(node)
    node.kube.refuses_node = False
    async with asyncio.timeout(5):
        await node.api.standing.look()
    assert not node.api.standing.is_refused
    assert not old & {id(line) for line in node.api._node._idle}
