"""What a user of the fleet API may do by the policy: over real TLS, to boxes with kubelets of the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cloud_server.opens.policy import DoorPolicy
from protos import tunnel_pb2
from tests.support.fleet import (
    START,
    TOKEN,
    FakeRegistry,
    Fleet,
    Kubelet,
    acceptor,
    box,
    box_node,
    pod_list,
    running_fleet,
)
from tests.support.fleet_client import ask
from tests.support.fleet_watch import watching
from tests.support.joined import joined
from tests.support.policies import rights_of
from tests.support.waits import eventually
from tunnel.aio.http.http1 import Request, ServerConnection
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.wire.exec_terms import ExecTerms

pytestmark = pytest.mark.timeout(30)
PODS = "/api/v1/namespaces/default/pods"


async def kubelet(duplex: Duplex) -> None:
    """Lists a pod, and says its path to any other request."""
    http = ServerConnection(duplex)
    request = await http.next_request()
    assert request is not None
    body = pod_list("box-7", "host", "nginx.service") if request.target == "/pods" else request.target.encode()
    await http.respond(200, (), body)
    await duplex.aclose()


OPERATOR = """
[[role]]
name = "operator"
[[role.allow]]
verbs = ["get", "logs", "exec", "observe"]
[[binding]]
role = "operator"
users = ["ann"]
"""
OPERATORS = rights_of(OPERATOR)
ADMINISTERING = rights_of(OPERATOR.replace('"observe"', '"observe", "administer"'))


async def test_only_an_administrator_reads_recordings(tmp_path: Path) -> None:
    policy = DoorPolicy(OPERATORS)
    async with running_fleet(tmp_path, FakeRegistry(box("box-7")), {"box-7": kubelet}, policy) as fleet:
        code, refused = await ask(fleet, f"{PODS}/box-7/recordings")
        assert (code, refused["reason"]) == (403, "Forbidden")
        policy.rights = ADMINISTERING
        code, told = await ask(fleet, f"{PODS}/box-7/recordings")
        assert (code, told) == (200, "/recordings/default/box-7")


SITES = """
[[role]]
name = "contractor"
[[role.allow]]
labels = { site = "a" }
verbs = ["get"]
[[role.allow]]
name = "nginx-logs"
labels = { site = "a" }
verbs = ["logs"]
units = ["nginx*"]
[[role.allow]]
name = "as-operator"
agents = ["a-1"]
verbs = ["exec"]
accounts = ["operator", "app"]
record = true
[[role.allow]]
name = "web"
agents = ["a-1"]
verbs = ["port-forward"]
targets = ["localhost:80", "localhost:8000-8010"]
[[binding]]
role = "contractor"
users = ["ann"]

[[role]]
name = "helper"
[[role.allow]]
name = "may-act"
verbs = ["impersonate"]
whom = ["user:ann", "group:site-*"]
[[role.allow]]
verbs = ["cp"]
agents = ["a-1"]
[[role.allow]]
verbs = ["get"]
agents = ["a-1"]
[[binding]]
role = "helper"
users = ["robot"]

[[role]]
name = "site-b"
[[role.allow]]
verbs = ["get"]
agents = ["b-*"]
[[binding]]
role = "site-b"
groups = ["site-b"]

[[role]]
name = "boss"
[[role.allow]]
[[binding]]
role = "boss"
users = ["boss"]
"""
RIGHTS = rights_of(SITES)
NARROWER = rights_of(SITES.replace('site = "a"', 'site = "none"'))
OTHER_RULES = rights_of(SITES.replace('localhost:80"', 'localhost:81"'))
NO_RIGHTS = rights_of("")
DENIED_AT_B = rights_of(
    """
[[role]]
name = "all-but-b"
[[role.allow]]
[[role.deny]]
agents = ["b-*"]
[[binding]]
role = "all-but-b"
users = ["ann"]
"""
)
ANN_ADMINISTERS = rights_of(
    SITES
    + """
[[role]]
name = "administers"
[[role.allow]]
verbs = ["administer"]
[[binding]]
role = "administers"
users = ["ann"]
"""
)
BOX = {"a-1": {"site": "a"}, "a-2": {"site": "a"}, "b-1": {"site": "b"}}
UPGRADE = {
    "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13", "sec-websocket-protocol": "v4.channel.k8s.io",
}  # fmt: skip


def with_an_event() -> tunnel_pb2.Node:
    node = box_node()
    node.facts.add(code="LL2018", text="the clock is wrong", since_s=int(START.timestamp()))
    return node


@dataclass
class Boxes:
    """Three boxes of two sites, and the last request that each kubelet got, but for its pods."""

    fleet: Fleet
    policy: DoorPolicy
    labels: dict[str, dict[str, str]]
    asked: dict[str, Request]

    async def names(self, path: str, **more: Any) -> list[str]:
        code, body = await ask(self.fleet, path, **more)
        assert code == 200, body
        return [item["metadata"]["name"] for item in body["items"]]

    async def refusal(self, path: str, code: int, **more: Any) -> Any:
        found, body = await ask(self.fleet, path, **more)
        assert (found, body["kind"]) == (code, "Status"), body
        return body


@pytest.fixture
async def boxes(tmp_path: Path) -> AsyncIterator[Boxes]:
    asked: dict[str, Request] = {}

    def serving(name: str) -> Kubelet:
        async def serve(duplex: Duplex) -> None:
            http = ServerConnection(duplex)
            request = await http.next_request()
            assert request is not None
            if request.target == "/pods":
                await http.respond(200, (), pod_list(name, "host", "nginx.service", "app.log"))
            elif request.target == "/stats/summary":
                await http.respond(404, (), b"")
            else:
                asked[name] = request
                await http.respond(200, (), b"done\n")
            await duplex.aclose()

        return serve

    labels = dict(BOX)
    policy = DoorPolicy(RIGHTS, lambda name: labels.get(name, {}))
    registry = FakeRegistry(*(box(name, node=with_an_event()) for name in BOX))
    async with running_fleet(tmp_path, registry, {name: serving(name) for name in BOX}, policy) as fleet:
        made = Boxes(fleet, policy, labels, asked)
        await eventually(lambda: len(fleet.opener.opened) >= len(BOX), what="the kubelets were asked")
        await eventually(
            lambda: not any(pair.server.statistics().streams for pair in fleet.opener.pairs.values()), what="answers"
        )
        yield made


async def test_lists_have_what_may_be_seen(boxes: Boxes) -> None:
    for path in ("/api/v1/nodes", "/api/v1/pods", PODS, "/apis/coordination.k8s.io/v1/leases"):
        assert await boxes.names(path) == ["a-1", "a-2"], path
    events = await boxes.names("/api/v1/events")
    assert [name.partition(".")[0] for name in events] == ["a-1", "a-2"]
    _, page = await ask(boxes.fleet, "/api/v1/nodes?limit=1")
    assert page["metadata"]["remainingItemCount"] == 1
    _, table = await ask(
        boxes.fleet, "/api/v1/nodes", headers={"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    )
    assert [row["cells"][0] for row in table["rows"]] == ["a-1", "a-2"]
    assert "default" in await boxes.names("/api/v1/namespaces")


async def test_what_is_hidden_is_not_there(boxes: Boxes) -> None:
    for there, hidden in (
        ("/api/v1/nodes/{}", "b-1"), (f"{PODS}/{{}}", "b-1"), (f"{PODS}/{{}}/log?container=nginx.service", "b-1"),
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", "b-1"),
        ("/apis/metrics.k8s.io/v1beta1/nodes/{}", "b-1"), (f"{PODS}/{{}}/exec?command=id&container=host", "b-1"),
    ):  # fmt: skip
        refused = await boxes.refusal(there.format(hidden), 404)
        none = await boxes.refusal(there.format("b-9"), 404)
        alike = str(refused).replace("b-1", "b-9").replace(", did you mean a-1?", "")
        assert alike == str(none), there
    assert "b-1" not in str(await boxes.refusal("/api/v1/nodes/b-2", 404)), "no hint at it either"
    assert "b-1" not in boxes.asked


async def test_logs_of_some_units(boxes: Boxes) -> None:
    code, text = await ask(boxes.fleet, f"{PODS}/a-1/log?container=nginx.service")
    assert (code, text) == (200, "done\n")
    refused = await boxes.refusal(f"{PODS}/a-1/log?container=app.log", 403)
    assert refused["reason"] == "Forbidden"
    assert refused["message"] == (
        'pods "a-1" is forbidden: User "ann" cannot get resource "pods/log" in API group "" in the namespace "default":'
        " default deny: no rule lets user ann logs of app.log at a-1"
    )
    assert [one["reason"] for one in refused["details"]["causes"]] == ["LL4101", "Rule"]
    record = boxes.fleet.doors.records.of("refused")[-1]
    assert (record["rule"], record["agent"], record["container"]) == ("default deny", "a-1", "app.log")


async def test_the_terms_of_the_rule_go_to_the_box_and_those_of_a_client_do_not(boxes: Boxes) -> None:
    forged = {**UPGRADE, "longline-accounts": "root", "longline-record": "no"}
    await ask(boxes.fleet, f"{PODS}/a-1/exec?command=id&container=host&stdout=1", headers=forged)
    assert ExecTerms.read(boxes.asked["a-1"].headers) == ExecTerms(frozenset({"operator", "app"}), True)
    await boxes.refusal(f"{PODS}/a-2/exec?command=id&container=host", 403, headers=UPGRADE)
    assert "a-2" not in boxes.asked


async def list_another_pod(duplex: Duplex) -> None:
    """Answers one request as the kubelet of a box that has a pod `web-0`."""
    http = ServerConnection(duplex)
    await http.next_request()
    await http.respond(200, (), pod_list("web-0", "host"))
    await duplex.aclose()


async def test_an_account_is_demanded_of_the_boxs_own_pod_alone(boxes: Boxes) -> None:
    """A real kubelet knows nothing of accounts, and would run the command."""
    async with joined(acceptor(list_another_pod)) as pair:
        boxes.fleet.opener.pairs["a-1"] = pair
        boxes.fleet.registry.change("a-1", since=START + timedelta(hours=1))
        await eventually(
            lambda: "a-1" in boxes.fleet.server._mirror.boxes_with("default", "web-0"), what="the box has another pod"
        )
        refused = await boxes.refusal(f"{PODS}/web-0.a-1/exec?command=id&container=host", 403, headers=UPGRADE)
        assert "which only a box's own pod has" in refused["message"]
        assert "as-operator" in refused["message"]


async def test_the_box_of_a_hidden_pod_is_not_told(boxes: Boxes) -> None:
    async def told(name: str, verb: str, sub: str) -> str:
        attributes = {"verb": verb, "resource": "pods", "name": name, "subresource": sub}
        _, body = await _review(boxes, "SelfSubjectAccessReview", resourceAttributes=attributes)
        return str(body["status"]).replace(name, "POD")

    async with joined(acceptor(list_another_pod)) as pair:
        boxes.fleet.opener.pairs["b-1"] = pair
        boxes.fleet.registry.change("b-1", since=START + timedelta(hours=1))
        await eventually(
            lambda: "b-1" in boxes.fleet.server._mirror.boxes_with("default", "web-0"), what="the other pod"
        )
        # Of site b, the policy says other things than of a box that is not there, and names it.
        for rights in (RIGHTS, DENIED_AT_B):
            boxes.policy.rights = rights
            for verb, sub in (("get", ""), ("get", "log"), ("create", "exec"), ("create", "portforward")):
                for none in ("web-9.b-1", "web-0.b-9"):
                    assert await told("web-0.b-1", verb, sub) == await told(none, verb, sub)
                assert "b-1" not in await told("web-0.b-1", verb, sub)
            hidden = f"{PODS}/{{}}/exec?command=id&container=none"
            refused = await boxes.refusal(hidden.format("web-0.b-1"), 404, headers=UPGRADE)
            for none in ("web-9.b-1", "web-0.b-9"):
                said = await boxes.refusal(hidden.format(none), 404, headers=UPGRADE)
                assert str(refused).replace("web-0.b-1", none) == str(said)
            # Nor is a hidden box's pod thought of when somebody asks for it by the name that it has there.
            assert "web-0.b-1" not in str(await boxes.refusal(hidden.format("web-0"), 404, headers=UPGRADE))


async def test_copies_without_commands(boxes: Boxes) -> None:
    robot = {**UPGRADE, "authorization": f"Bearer {TOKEN}"}
    copy = "command=tar&command=cf&command=-&command=/etc/hostname"
    await ask(boxes.fleet, f"{PODS}/a-1/exec?{copy}&container=host", headers=robot, certificate=False)
    assert "tar" in boxes.asked["a-1"].target
    for command in ("command=id", f"{copy}&command=--to-command%3Did", "command=sh&command=-c&command=tar cf -"):
        path = f"{PODS}/a-1/exec?{command.replace(' ', '%20')}&container=host"
        refused = await boxes.refusal(path, 403, headers=robot, certificate=False)
        assert "no rule lets user robot exec" in refused["message"]
    path = f"{PODS}/a-1/attach?{copy}&container=host"
    await boxes.refusal(path, 403, headers=robot, certificate=False)


async def test_ports_count_where_the_query_binds_the_client(boxes: Boxes) -> None:
    forward = f"{PODS}/a-1/portforward"
    await ask(boxes.fleet, f"{forward}?ports=80&ports=8001,8002", headers=UPGRADE)
    assert boxes.asked.pop("a-1").target.startswith("/portForward/default/a-1?port=80")
    for query, headers in (
        ("ports=80&ports=22", UPGRADE),
        ("ports=80,22", UPGRADE),
        ("", UPGRADE),
        # SPDY names its ports behind the upgrade, whatever the query says.
        ("ports=80", {**UPGRADE, "sec-websocket-protocol": "SPDY/3.1+portforward.k8s.io"}),
        (
            "ports=80",
            {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x-stream-protocol-version": "portforward.k8s.io"},
        ),
    ):
        await boxes.refusal(f"{forward}?{query}", 403, headers=headers)
        assert "a-1" not in boxes.asked
    await boxes.refusal(f"{forward}?ports=http", 400, headers=UPGRADE)


async def test_who_may_acts_as_somebody_else_with_no_more_than_that_one_has(boxes: Boxes) -> None:
    token = {"authorization": f"Bearer {TOKEN}"}
    as_robot: dict[str, Any] = {"certificate": False}
    as_ann = {**token, "impersonate-user": "ann"}
    assert await boxes.names("/api/v1/nodes", headers=token, **as_robot) == ["a-1"]
    assert await boxes.names("/api/v1/nodes", headers=as_ann, **as_robot) == ["a-1", "a-2"]
    everywhere = {**as_ann, "impersonate-group": "site-b"}
    assert await boxes.names("/api/v1/nodes", headers=everywhere, **as_robot) == ["a-1", "a-2", "b-1"]
    for headers, kind in (
        ({"impersonate-user": "boss"}, "users"), ({"impersonate-user": "ann", "impersonate-group": "admins"}, "groups"),
        ({"impersonate-user": "ann", "impersonate-uid": "7"}, "uids"),
    ):  # fmt: skip
        refused = await boxes.refusal("/api/v1/nodes", 403, headers={**token, **headers}, **as_robot)
        assert (
            f'User "robot" cannot impersonate resource "{kind}" in API group "" at the cluster scope'
            in (refused["message"])
        )
    await boxes.refusal("/api/v1/nodes", 400, headers={**token, "impersonate-group": "site-b"}, **as_robot)
    await boxes.refusal("/api/v1/nodes", 422, headers={**token, "impersonate-user": "a" * 254}, **as_robot)

    await ask(boxes.fleet, f"{PODS}/a-1/log?container=nginx.service", headers=as_ann, **as_robot)
    record = boxes.fleet.doors.records.of("open")[-1]
    assert record["who"] == "ann"
    assert record["proof"].startswith("user:robot token:")
    read = next(one for one in boxes.fleet.doors.records.of("read") if one["who"] == "ann" and "resource" in one)
    assert read["proof"] == record["proof"]


async def test_the_watch_of_a_site_and_a_policy_that_changes(boxes: Boxes) -> None:
    token = ("authorization", f"Bearer {TOKEN}")
    as_ann = (token, ("impersonate-user", "ann"))
    async with watching(boxes.fleet, "/api/v1/nodes?watch=1", *as_ann) as watch:
        assert await watch.names(2) == [("ADDED", "a-1"), ("ADDED", "a-2")]
        boxes.fleet.registry.change("b-1", version="0.2.0")
        boxes.fleet.registry.change("a-2", version="0.2.0")
        assert await watch.names(1) == [("MODIFIED", "a-2")]
        # Other rules that show the same: it goes on.
        boxes.policy.rights = OTHER_RULES
        boxes.fleet.server.rights_changed()
        boxes.fleet.registry.change("a-1", version="0.3.0")
        assert await watch.names(1) == [("MODIFIED", "a-1")]
        version = (await ask(boxes.fleet, "/api/v1/nodes"))[1]["metadata"]["resourceVersion"]
        boxes.policy.rights = NARROWER
        boxes.fleet.server.rights_changed()
        kind, status = await watch.next()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        await watch.end()
    # Who has listed before the change lists again, too.
    boxes.policy.rights = RIGHTS
    path = f"/api/v1/nodes?watch=1&resourceVersion={version}"
    async with watching(boxes.fleet, path, *as_ann) as watch:
        assert (await watch.next())[1]["code"] == 410


async def test_labels_change_what_a_watch_sees(boxes: Boxes) -> None:
    as_ann = (("authorization", f"Bearer {TOKEN}"), ("impersonate-user", "ann"))
    async with watching(boxes.fleet, "/api/v1/nodes?watch=1", *as_ann) as watch:
        assert await watch.names(2) == [("ADDED", "a-1"), ("ADDED", "a-2")]
        boxes.labels["b-1"] = {"site": "b", "rack": "7"}  # which changes nothing that is seen
        boxes.fleet.server.relabelled("b-1")
        boxes.fleet.registry.change("a-1", version="0.3.0")
        assert await watch.names(1) == [("MODIFIED", "a-1")]
        boxes.labels["b-1"] = {"site": "a"}
        boxes.fleet.server.relabelled("b-1")
        assert (await watch.next())[1]["code"] == 410
    assert await boxes.names("/api/v1/nodes") == ["a-1", "a-2", "b-1"]


async def test_what_is_hidden_while_its_box_is_asked_is_not_shown(tmp_path: Path) -> None:
    measuring: set[str] = set()
    go = asyncio.Event()

    def serving(name: str) -> Kubelet:
        async def serve(duplex: Duplex) -> None:
            http = ServerConnection(duplex)
            request = await http.next_request()
            assert request is not None
            if request.target == "/pods":
                await http.respond(200, (), pod_list(name, "host"))
            else:
                measuring.add(name)
                await go.wait()
                sample = {"cpu": {"usageNanoCores": 1}, "memory": {"workingSetBytes": 1}}
                await http.respond(200, (), json.dumps({"node": sample, "pods": []}).encode())
            await duplex.aclose()

        return serve

    labels = dict(BOX)
    policy = DoorPolicy(RIGHTS, lambda name: labels.get(name, {}))
    registry = FakeRegistry(*(box(name) for name in BOX))
    metrics = "/apis/metrics.k8s.io/v1beta1/nodes"
    async with running_fleet(tmp_path, registry, {name: serving(name) for name in BOX}, policy) as fleet:
        await eventually(lambda: len(fleet.opener.opened) >= len(BOX), what="the kubelets were asked")
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(fleet, path)) for path in (metrics, f"{metrics}/a-2", "/api/v1/nodes/a-2")]
            await eventually(lambda: measuring >= {"a-1", "a-2"}, what="the boxes are measured")
            labels["a-2"] = {"site": "b"}
            go.set()
        listed, one, node = (task.result() for task in asking)
    assert (listed[0], [item["metadata"]["name"] for item in listed[1]["items"]]) == (200, ["a-1"])
    assert (one[0], node[0]) == (404, 404)


async def test_who_may_see_nothing_is_told(boxes: Boxes) -> None:
    boxes.policy.rights = NO_RIGHTS
    refused = await boxes.refusal("/api/v1/nodes", 403)
    assert refused["message"] == (
        'nodes is forbidden: User "ann" cannot list resource "nodes" in API group "" at the cluster scope:'
        " default deny: no rule lets user ann get"
    )
    code, _ = await ask(boxes.fleet, "/version")
    assert code == 200
    (record,) = (one for one in boxes.fleet.doors.records.of("refused") if one.get("resource") == "nodes")
    assert (record["who"], record["verb"], "default deny" in record["text"]) == ("ann", "list", True)


async def _review(boxes: Boxes, kind: str, **spec: Any) -> Any:
    body = json.dumps({"kind": kind, "apiVersion": "authorization.k8s.io/v1", "spec": spec})
    return await ask(boxes.fleet, f"/apis/authorization.k8s.io/v1/{kind.lower()}s", method="POST", body=body)


async def test_reviews_are_answered_by_the_policy(boxes: Boxes) -> None:
    async def may(verb: str, resource: str, name: str = "", sub: str = "", group: str = "") -> tuple[bool, str]:
        attributes = {"verb": verb, "group": group, "resource": resource, "name": name, "subresource": sub}
        code, body = await _review(boxes, "SelfSubjectAccessReview", resourceAttributes=attributes)
        assert code == 201
        return body["status"]["allowed"], body["status"]["reason"]

    for asked, allowed in (
        (("list", "nodes"), True), (("get", "nodes", "a-1"), True), (("get", "nodes", "b-1"), False),
        (("get", "pods", "a-1", "log"), True), (("get", "pods", "b-1", "log"), False),
        (("create", "pods", "a-1", "exec"), True), (("create", "pods", "a-2", "exec"), False),
        (("get", "pods", "a-1", "recordings"), False), (("impersonate", "users", "ann"), False),
        (("create", "subjectaccessreviews", "", "", "authorization.k8s.io"), False),
        (("create", "selfsubjectaccessreviews", "", "", "authorization.k8s.io"), True),
        (("delete", "pods", "a-1"), False), (("get", "secrets"), False),
    ):  # fmt: skip
        assert (await may(*asked))[0] is allowed, asked
    assert (await may("get", "pods", "a-1", "log"))[1].startswith("nginx-logs (some of this is for some boxes")
    _, body = await _review(boxes, "SelfSubjectRulesReview", namespace="default")
    status = body["status"]
    listed = {rule["resources"][0] for rule in status["resourceRules"]}
    assert {"nodes", "pods", "pods/log", "pods/exec", "pods/portforward"} <= listed
    assert not listed & {"pods/recordings", "subjectaccessreviews", "users", "groups"}
    assert (status["incomplete"], "ask with a name" in status["evaluationError"]) == (True, True)


@pytest.mark.parametrize("field", ["name", "namespace", "resource", "subresource", "group", "verb"])
async def test_a_name_longer_than_any_is_not_weighed(boxes: Boxes, field: str) -> None:
    attributes = {"verb": "get", "resource": "nodes", "name": "a-1"}
    for text, expected in (("a" * 253, 201), ("a" * 254, 422)):
        found, body = await _review(boxes, "SelfSubjectAccessReview", resourceAttributes={**attributes, field: text})
        assert found == expected, body


async def test_rights_of_others_are_for_administrators(boxes: Boxes) -> None:
    spec = {"user": "ann", "resourceAttributes": {"verb": "get", "resource": "nodes", "name": "a-1"}}
    code, refused = await _review(boxes, "SubjectAccessReview", **spec)
    assert (code, "subjectaccessreviews.authorization.k8s.io is forbidden" in refused["message"]) == (403, True)
    boxes.policy.rights = ANN_ADMINISTERS
    for user, groups, allowed in (("ann", [], True), ("boss", [], True), ("x", ["site-b"], False), ("x", [], False)):
        code, body = await _review(boxes, "SubjectAccessReview", **{**spec, "user": user, "groups": groups})
        assert (code, body["status"]["allowed"]) == (201, allowed), user
