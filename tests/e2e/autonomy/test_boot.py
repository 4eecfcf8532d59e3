"""A node whose kubelet asks the API server through the agent, when the way to the cloud is cut and when it is back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.e2e.cluster import workloads
from tests.e2e.cluster.autonomous import SITE, Edge
from tests.e2e.cluster.kinds_of_pods import Kind
from tests.e2e.cluster.steady_requests import SteadyRequests
from tests.support.agent_status import status_of
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
Pod = dict[str, Any]
PODS = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{SITE}"


def test_pods_start_and_their_state_is_seen(edge: Edge) -> None:
    edge.kube.kubectl("create", "configmap", "settings", "--from-literal", "greeting=hello")
    edge.kube.kubectl("create", "secret", "generic", "password", "--from-literal", "word=xyzzy")
    serve = "mkdir /www && (env; cat /secret/word) > /www/index.html && exec httpd -f -p 8080 -h /www"
    pod = workloads.pod("app", workloads.container(
        "web", "sh", "-c", serve,
        env=[{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}}],
        volumeMounts=[{"name": "secret", "mountPath": "/secret"}], resources={"requests": {"cpu": "500m"}},
    ), node=SITE)  # fmt: skip
    pod["spec"]["volumes"] = [{"name": "secret", "secret": {"secretName": "password"}}]
    pod["metadata"]["labels"] = {"app": "app"}
    edge.kube.control.api.apply(pod)
    edge.kube.kubectl("expose", "pod", "app", "--port=80", "--target-port=8080")
    edge.kube.kubectl("wait", "pod/app", "--for=condition=Ready", "--timeout=60s")
    address = edge.kube.kubectl("get", "pod", "app", "-o", "jsonpath={.status.podIP}")
    page = edge.node.namespaces.run("curl", "-s", f"http://{address}:8080/")
    for line in ("GREETING=hello", "KUBERNETES_SERVICE_HOST=", "xyzzy"):
        assert line in page
    wait_until(lambda: "xyzzy" in edge.service("app"), "the Service leads to the pod", 30)


@pytest.fixture
def asked(edge: Edge) -> Iterator[SteadyRequests]:
    """Somebody on the node who asks the Service of the pod all the time."""
    with edge.asking("app") as requests:
        yield requests


def test_a_kubelet_that_starts_without_the_cloud_kills_nothing(edge: Edge, asked: SteadyRequests) -> None:
    before = edge.pod_ids()
    with edge.cut():
        wait_until(lambda: "longline" in edge.ask_head(PODS), "the cut is noticed", 15)
        edge.node.kubelet.kill()
        edge.node.kubelet.start()
        time.sleep(8)
        connections = edge.connections()
        time.sleep(14)
        assert edge.connections() == connections, "it keeps its connection, with all of its watches"
        assert edge.pod_ids() == before
        assert "app" in [item["metadata"]["name"] for item in json.loads(edge.ask(PODS))["items"]]
        assert {ready for _, ready in edge.endpoints("app")} == {False}, "the cloud has given it up"
    wait_until(edge.is_ready, "the node is ready again", 60)
    wait_until(lambda: {ready for _, ready in edge.endpoints("app")} == {True}, "the cloud knows of the pod", 30)
    assert edge.pod_ids() == before
    assert asked.lost() == []
    assert len(asked.answers()) > 1000


def test_a_node_that_boots_without_the_cloud_runs_its_pods_again(edge: Edge) -> None:
    """Pods with all that a kubelet asks for: Services, Secrets there and not, tokens, claims, labels, files."""
    kinds = [Kind("app", 8080, "xyzzy"), *edge.kinds]
    token = edge.page("token")
    before = {kind.name: edge.pod(kind.name) for kind in kinds}
    with edge.cut():
        edge.node.power_cut()
        edge.box.agent.kill()
        edge.box.agent.start().wait_ready()
        edge.node.boot()
        wait_until(lambda: "xyzzy" in edge.page("app"), "the pod runs again", 90)
        wait_until(lambda: edge.is_up_again("app"), "it is ready", 10)
        late_s = wait_until(lambda: edge.leads_to(edge.pod("app")["status"]["podIP"]), "the Service leads to it", 2)
        print(f"the Service leads to it {late_s:.2f} s later")
        assert "xyzzy" in edge.service("app")
        for kind in kinds:
            wait_until(partial(edge.serves, kind), f"{kind.name} runs again", 90)
        _, status = status_of(edge.box)
        autonomy = status["autonomy"]
        assert not autonomy["reached"]
        assert not autonomy["missing"]
        assert all(scope["complete"] and scope["kept"] for scope in autonomy["scopes"]), autonomy
        shared = {one["name"]: one["watchers"] for one in autonomy["scopes"] if one["who"] == "shared"}
        assert shared["services"] >= 2, "of the kubelet and of kube-proxy"
        assert shared["endpointslices.discovery.k8s.io"] >= 1
        assert {"node", "system:serviceaccount:kube-system:kube-proxy"} <= {one["who"] for one in autonomy["scopes"]}
        assert autonomy["waiting"]["statuses"]
        assert autonomy["lease_seen"] is not None
        assert edge.page("token") == token, "the one that was issued to it before"
        assert edge.page("claim").splitlines() == ["started"] * 2, "its volume has what it wrote before"
        for kind in kinds:
            wait_until(partial(_is_seen, edge, kind.name), f"{kind.name} is seen")
            assert_started_once_more(before[kind.name], edge.pod(kind.name))
    wait_until(edge.is_ready, "the node is ready again", 60)
    for kind in kinds:
        wait_until(partial(_is_known, edge, kind.name), f"the cloud knows of {kind.name}", 60)
        assert_started_once_more(before[kind.name], _of_cloud(edge, kind.name))
    assert "xyzzy" in edge.service("app")
    wait_until(lambda: not any(status_of(edge.box)[1]["autonomy"]["waiting"].values()), "all was told", 30)
    names = edge.kube.kubectl("get", "events", "--field-selector", "involvedObject.name=app", "-o", "name")
    assert len(names.split()) > 3, "also what happened without the cloud"


def assert_started_once_more(before: Pod, after: Pod) -> None:
    """It is the same pod, and its container was started once since: as on a node whose cloud is there."""
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    counts = [one["status"]["containerStatuses"][0]["restartCount"] for one in (before, after)]
    assert counts[1] == counts[0] + 1, after["metadata"]["name"]


def _is_seen(edge: Edge, name: str) -> bool:
    """Whether a container of a pod is seen to run, on the node."""
    return "running" in edge.pod(name)["status"]["containerStatuses"][0]["state"]


def _is_known(edge: Edge, name: str) -> bool:
    """Whether the cloud says of a pod what the kubelet says, and that it is ready."""
    here, there = (pod["status"] for pod in (edge.pod(name), _of_cloud(edge, name)))
    is_ready = {"type": "Ready", "status": "True"}.items()
    return (
        any(is_ready <= condition.items() for condition in there["conditions"])
        and there["podIP"] == here["podIP"]
        and there["containerStatuses"] == here["containerStatuses"]
    )


def _of_cloud(edge: Edge, name: str) -> Pod:
    return dict(json.loads(edge.kube.kubectl("get", "pod", name, "-o", "json")))
