"""Who comes with a token sees what they may see, and while the API server is away what they were seen to be allowed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.answering import callers as callers_module
from edge_agent.autonomy.answering import kept_answers
from edge_agent.autonomy.answering.callers import bearer_of, bound_pod, claims_of
from edge_agent.autonomy.kept.feeds import KeptLimits
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually, sooner_than
from tunnel.core.wire.errors import StreamError

SERVICES = "/api/v1/services?resourceVersion=0"
PROXY, DNS = "system:serviceaccount:kube-system:kube-proxy", "system:serviceaccount:kube-system:coredns"


def token(user: str, pod: str = "", **more: Any) -> str:
    """A token as an API server signs one, as far as anybody here looks at it."""
    claims = {"sub": user, **({"kubernetes.io": {"pod": {"uid": pod}}} if pod else {}), **more}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with node_and_kube(tmp_path) as made:
        await made.kube.put("services", "web", "ns")
        await made.kube.put("pods", "one", "ns")
        made.kube.users = {token(PROXY): PROXY, token(DNS): DNS}
        made.kube.rights = {PROXY: {"services"}, DNS: {"pods"}}
        yield made


def as_(user: str, pod: str = "") -> str:
    return f"Bearer {token(user, pod)}"


async def test_a_list_is_kept_in_the_name_of_who_asks(node: Node) -> None:
    for _ in range(3):
        assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]
    counts = node.kube.counts()
    assert (counts["/api/v1/services"], counts["watch /api/v1/services"]) == (1, 1)
    assert counts[callers_module.REVIEW] == 1
    await node.cut()
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]
    await node.restart()
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]


async def test_others_see_nothing_of_it(node: Node) -> None:
    await node.names(SERVICES, authorization=as_(PROXY))
    assert (await node.ask("GET", SERVICES, authorization=as_(DNS)))[0].status == 403
    assert (await node.ask("GET", SERVICES, authorization="Bearer none"))[0].status == 401
    await node.cut()
    for authorization in (as_(DNS), "Bearer none", f"Bearer {token(PROXY, exp=1)}", "Basic eDp5"):
        head, said = await node.ask("GET", SERVICES, authorization=authorization, user_agent="kubelet/v1.34")
        assert (head.status, said["reason"]) == (503, "ServiceUnavailable")
    assert (await node.ask("GET", SERVICES, x_nobody="1"))[0].status == 503


async def test_the_nodes_own_lists_are_not_for_tokens(node: Node) -> None:
    assert await node.names(SERVICES) == ["web"]
    await node.cut()
    assert (await node.ask("GET", SERVICES, authorization=as_(PROXY)))[0].status == 503


async def test_a_token_of_a_pod_counts_as_long_as_the_pod_is_here(node: Node) -> None:
    uid = node.kube.objects["pods", "ns", "one"]["metadata"]["uid"]
    node.kube.users[token(PROXY, uid)] = PROXY
    await node.names("/api/v1/pods?resourceVersion=0")
    await node.names(SERVICES, authorization=as_(PROXY, uid))
    await node.cut()
    assert await node.names(SERVICES, authorization=as_(PROXY, uid)) == ["web"]
    node.kube.gone = False
    await node.kube.remove("pods", "one", "ns")
    await eventually(lambda: not any(len(feed.replica) for feed in node.api.feeds.all if feed.scope.resource == "pods"))
    await node.cut()
    assert (await node.ask("GET", SERVICES, authorization=as_(PROXY, uid)))[0].status == 503


async def test_a_token_that_the_kubelet_got_meanwhile_is_known(node: Node) -> None:
    """A pod has a new token after a reboot, which nobody has shown here before."""
    uid = node.kube.objects["pods", "ns", "one"]["metadata"]["uid"]
    await node.names("/api/v1/pods?resourceVersion=0")
    await node.names(SERVICES, authorization=as_(PROXY))
    answered = {"kind": "TokenRequest", "status": {"token": token(PROXY, uid, jti="new")}}
    path = "/api/v1/namespaces/kube-system/serviceaccounts/kube-proxy/token"
    await node.ask("POST", path, json.dumps(answered).encode(), content_type="application/json")
    await node.cut()
    await node.restart()
    assert await node.names(SERVICES, authorization=f"Bearer {token(PROXY, uid, jti='new')}") == ["web"]


async def test_rights_that_are_taken_count_soon(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers_module, "RECHECK_S", 0.0)
    monkeypatch.setattr(callers_module, "REFUSED_S", 0.0)
    monkeypatch.setattr(kept_answers, "LOOK_S", 0.2)
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]
    async with node.client() as http:
        target = f"{SERVICES}&watch=1&resourceVersion={node.kube.version}"
        head = await http.request("GET", target, [("host", "x"), ("authorization", as_(PROXY))])
        assert head.status == 200
        node.kube.rights[PROXY].clear()
        with pytest.raises(StreamError):
            await http.read_body(1 << 20)
    assert (await node.ask("GET", SERVICES, authorization=as_(PROXY)))[0].status == 403
    await node.cut()
    assert (await node.ask("GET", SERVICES, authorization=as_(PROXY)))[0].status == 503


@pytest.mark.parametrize("status", [401, 500, 503, 429])
async def test_an_api_server_in_trouble_takes_no_rights(
    node: Node, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers_module, "RECHECK_S", 0.0)
    await node.names(SERVICES, authorization=as_(PROXY))
    node.kube.answers["/apis/auth"] = status
    await node.ask("GET", SERVICES, authorization=as_(PROXY))
    await node.cut()
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]


async def test_a_token_for_somebody_else_is_no_proof_here(node: Node) -> None:
    await node.names(SERVICES, authorization=as_(PROXY))
    for_vault = token(PROXY, aud="vault")
    answered = {"spec": {"audiences": ["vault"]}, "status": {"token": for_vault}}
    path = "/api/v1/namespaces/kube-system/serviceaccounts/kube-proxy/token"
    await node.ask("POST", path, json.dumps(answered).encode(), content_type="application/json")
    await node.cut()
    assert (await node.ask("GET", SERVICES, authorization=f"Bearer {for_vault}"))[0].status == 503


async def test_one_user_cannot_take_all_the_room(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path, KeptLimits(scopes=16)) as node:
        node.kube.users, node.kube.rights = {token(PROXY): PROXY}, {PROXY: {"services"}}
        for number in range(6):
            await node.names(f"{SERVICES}&labelSelector=a{number}", authorization=as_(PROXY))
        assert len(node.api.feeds.all) == 2
        await node.names("/api/v1/pods?resourceVersion=0")
        assert len(node.api.feeds.all) == 3


async def test_when_a_list_is_refused_its_watches_end_and_ask_the_api_server(node: Node) -> None:
    await node.names(SERVICES, authorization=as_(PROXY))
    (feed,) = node.api.feeds.all
    await eventually(lambda: feed.is_live)
    async with node.client() as http:
        target = f"/api/v1/services?watch=1&resourceVersion={node.kube.version}"
        head = await http.request("GET", target, [("host", "x"), ("authorization", as_(PROXY))])
        assert head.status == 200
        node.kube.users.clear()  # the token has expired
        for conn in tuple(node.kube.connections):
            conn.reset()
        assert await http.read_body(1 << 20) == b""
    assert (await node.ask("GET", SERVICES, authorization=as_(PROXY)))[0].status == 401
    await node.cut()
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]
    async with node.client() as http:
        head = await http.request("GET", target, [("host", "x"), ("authorization", as_(PROXY))])
        assert head.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await http.read_chunk()


async def test_a_watch_does_not_outlive_its_token(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its user has another one, and may what they may."""
    monkeypatch.setattr(callers_module, "RECHECK_S", 0.0)
    monkeypatch.setattr(kept_answers, "LOOK_S", 0.2)
    other = token(PROXY, jti="other")
    node.kube.users[other] = PROXY
    await node.names(SERVICES, authorization=as_(PROXY))
    async with node.client() as http:
        target = f"/api/v1/services?watch=1&resourceVersion={node.kube.version}"
        head = await http.request("GET", target, [("host", "x"), ("authorization", f"Bearer {other}")])
        assert head.status == 200
        del node.kube.users[other]
        with pytest.raises(StreamError):
            await http.read_body(1 << 20)
    assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]


async def test_a_silent_api_server_is_not_waited_for_by_users_either(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers_module, "RECHECK_S", 0.0)
    await node.names(SERVICES, authorization=as_(PROXY))
    node.kube.silent = True
    with sooner_than(9.0, "an answer of what is kept"):
        assert await node.names(SERVICES, authorization=as_(PROXY)) == ["web"]


async def test_after_a_restart_a_list_waits_for_its_owners_token(node: Node) -> None:
    await node.names(SERVICES, authorization=as_(PROXY))
    await node.restart()
    await node.until_up()
    (feed,) = node.api.feeds.all
    assert not feed.is_live
    await node.names(SERVICES, authorization=as_(PROXY))
    await eventually(lambda: feed.is_live)


async def test_a_token_that_was_shown_while_nobody_could_look_is_used_later(node: Node) -> None:
    await node.names(SERVICES, authorization=as_(PROXY))
    await node.cut()
    await node.restart()
    await node.names(SERVICES, authorization=as_(PROXY))
    node.kube.gone = False
    (feed,) = node.api.feeds.all
    await eventually(lambda: feed.is_live, 10)


async def test_what_the_kubelet_said_waits_for_no_others_list(node: Node) -> None:
    node.kube.rights[PROXY].add("nodes")
    await node.kube.put("nodes", "n")
    await node.names("/api/v1/nodes?resourceVersion=0", authorization=as_(PROXY))
    await node.names("/api/v1/nodes?resourceVersion=0")
    await node.cut()
    patch, kind = b'{"status":{"phase":"x"}}', "application/merge-patch+json"
    await node.ask("PATCH", "/api/v1/nodes/n/status", patch, content_type=kind)
    await node.restart()
    node.kube.gone = False
    await eventually(lambda: not node.api.writes.statuses, 10)
    assert [path for _, path, _ in node.kube.writes] == ["/api/v1/nodes/n/status"]


@pytest.mark.parametrize(("header", "found"), [
    (None, None), ("", None), ("Bearer", None), ("Bearer  ", None), ("Basic x", None), ("bearer x", "x"),
    ("Bearer x y", "x y"),
])  # fmt: skip
def test_a_header(header: str | None, found: str | None) -> None:
    assert bearer_of(header) == found


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "a.e30=.c", "a.W10.c", "a.eyJhIjox.c", "é.é.é"])
def test_what_is_no_token_says_nothing(text: str) -> None:
    assert claims_of(text) == {}
    assert bound_pod(text) == ""


async def test_slices_show_the_nodes_own_pods_where_they_are(node: Node) -> None:
    """After a reboot without the cloud: see `local_endpoints`."""
    one = node.kube.objects["pods", "ns", "one"]["metadata"]
    endpoint = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "targetRef": {"uid": one["uid"]}}
    await node.kube.put("endpointslices", "web-1", "ns", endpoints=[endpoint], addressType="IPv4")
    node.kube.rights[PROXY].add("endpointslices")
    slices = "/apis/discovery.k8s.io/v1/endpointslices?resourceVersion=0"
    await node.names("/api/v1/pods?resourceVersion=0")
    await node.names(slices, authorization=as_(PROXY))

    async def address() -> tuple[str, bool]:
        _, said = await node.ask("GET", slices, authorization=as_(PROXY))
        (endpoint,) = said["items"][0]["endpoints"]
        return endpoint["addresses"][0], endpoint["conditions"]["ready"]

    await node.cut()
    status = {"podIPs": [{"ip": "10.0.0.2"}], "conditions": [{"type": "Ready", "status": "True"}]}
    patch = json.dumps({"status": status}).encode()
    watch = f"/apis/discovery.k8s.io/v1/endpointslices?watch=1&resourceVersion={node.kube.version}"
    async with node.client() as http:
        head = await http.request("GET", watch, [("host", "x"), ("authorization", as_(PROXY))])
        assert head.status == 200
        await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", patch,
                       content_type="application/merge-patch+json")  # fmt: skip
        told = json.loads(await http.read_chunk())
    assert told["type"] == "MODIFIED"
    assert told["object"]["endpoints"][0]["addresses"] == ["10.0.0.2"]
    await node.restart()
    assert await address() == ("10.0.0.2", True)
    # The cloud is back, and says first that the pod is not ready.
    endpoint["conditions"] = {"ready": False}
    await node.kube.put("endpointslices", "web-1", "ns", endpoints=[endpoint], addressType="IPv4")
    node.kube.gone = False
    await eventually(lambda: not node.api.writes.statuses, 10)
    slices_feed = next(feed for feed in node.api.feeds.all if feed.scope.resource == "endpointslices")
    await eventually(lambda: slices_feed.is_live and slices_feed.replica.version == node.kube.version, 10)
    assert await address() == ("10.0.0.2", True)
    node.api.endpoints._settle()
    endpoint["addresses"] = ["10.0.0.2"]
    await node.kube.put("endpointslices", "web-1", "ns", endpoints=[endpoint], addressType="IPv4")
    await eventually(lambda: slices_feed.replica.version == node.kube.version, 10)
    assert await address() == ("10.0.0.2", False), "then it is believed"
