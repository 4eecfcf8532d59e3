"""A cluster whose CNI hands out addresses itself, as Calico and Cilium do: no Node has a podCIDR.

Its kube-apiserver dials pods by their own addresses, and of webhooks and APIs the endpoints in place of their services'
cluster IPs (`--enable-aggregator-routing`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import requirements, workloads
from tests.e2e.cluster.backend import FORBIDDEN, KNOWN_S, available, backend, create, wait_until_asked
from tests.e2e.cluster.kubernetes import SITES, PodNetworks
from tests.e2e.cluster.tunnelled import Tunnelled, tunnelled
from tests.support.tunnel import wait_until

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(90, func_only=True)

PODS = PodNetworks(
    cidrs={name: f"10.88.{index}.0/24" for index, name in enumerate(SITES, 37)}, in_nodes=False, endpoint_routing=True
)
SERVICE = "hello"
both = pytest.mark.parametrize("where", SITES)


@pytest.fixture(scope="module")
def kube() -> Iterator[Tunnelled]:
    """A cluster of its own, with a service for the pods of both sites."""
    if reason := requirements.missing():
        pytest.skip(reason)
    with tunnelled(pods=PODS) as made:
        made.kubernetes.control.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": SERVICE, "namespace": "default"},
                "spec": {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": 8080}]},
            }
        )
        yield made


def asked_of_pod(kube: Tunnelled, pod: str) -> str:
    """What a pod's web server answers to kube-apiserver, or why there is no answer."""
    asked = kube.run_kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{pod}:8080/proxy/")
    return (asked.stdout or asked.stderr).decode()


def sites_of_service(kube: Tunnelled) -> set[str]:
    """Who answers kube-apiserver, when it asks a service a few times."""
    asked = [
        kube.run_kubectl("get", "--raw", f"/api/v1/namespaces/default/services/{SERVICE}/proxy/") for _ in range(6)
    ]
    return {each.stdout.decode().removeprefix("hello from ").strip() for each in asked if each.returncode == 0}


def address_of(kube: Tunnelled, pod: str) -> str:
    return kube.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")


def test_no_node_has_a_pod_network(kube: Tunnelled) -> None:
    nodes = json.loads(kube.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [node["metadata"]["name"] for node in nodes] == list(SITES)
    assert not any(name.startswith("podCIDR") for node in nodes for name in node["spec"])


@both
def test_pod_proxy(kube: Tunnelled, where: str) -> None:
    assert address_of(kube, f"app-{where}").startswith(PODS.cidrs[where].removesuffix("0/24"))
    assert asked_of_pod(kube, f"app-{where}") == f"hello from {where}\n"


def test_service_proxy(kube: Tunnelled) -> None:
    wait_until(lambda: sites_of_service(kube) == set(SITES), "the service leads to both sites", KNOWN_S)


@both
def test_webhook_and_aggregated_api(kube: Tunnelled, where: str) -> None:
    with backend(kube, where, kube.kubernetes.control) as made:
        wait_until_asked(kube, made)
        address = address_of(kube, made.name)
        assert f"{made.name} forbids it" in create(kube, "asked", where, **{FORBIDDEN: ""}).stderr.decode()
        assert create(kube, "asked", where).returncode == 0
        kube.kubectl("delete", "configmap", "asked")
        wait_until(lambda: available(kube, made), "the API is available", KNOWN_S)
        got = kube.kubectl("get", f"readings.{made.group}", "-o", "name")
        assert got == f"reading.{made.group}/{made.name}\n"
    kube.cluster.server.wait_for_log(f'"target":"{address}:8443"')


def test_a_pod_that_ended_has_no_address_any_more(kube: Tunnelled) -> None:
    ended = workloads.pod("once", workloads.container("web", "true"), node="site-a")
    ended["spec"]["restartPolicy"] = "Never"
    kube.kubernetes.control.api.apply(ended)
    try:
        kube.kubectl("wait", "pod", "once", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s", timeout_s=40)
        wait_until(lambda: f"no agent for {address_of(kube, 'once')}" in asked_of_pod(kube, "once"), "it has none", 10)
    finally:
        kube.kubectl("delete", "pod", "once")


@pytest.fixture(scope="class")
def without_the_right_to_see_pods(kube: Tunnelled) -> Iterator[None]:
    """Meanwhile the server runs so; afterwards it has the right, and uses it."""
    role = json.loads(kube.kubectl("get", "clusterrole", "longline-cloud-server", "-o", "json"))
    role["metadata"] = {"name": role["metadata"]["name"]}
    less = copy.deepcopy(role)
    for rule in less["rules"]:
        rule["resources"] = [resource for resource in rule["resources"] if resource != "pods"]
    kube.kubectl("replace", "-f", "-", stdin=json.dumps(less).encode())
    kube.cluster.server.kill()
    kube.cluster.start()
    for name in SITES:
        ask = ("logs", f"app-{name}", "-c", "web")
        wait_until(lambda ask=ask: kube.run_kubectl(*ask).returncode == 0, "its agent is back", 30)  # type: ignore[misc]
    yield
    kube.kubectl("replace", "-f", "-", stdin=json.dumps(role).encode())
    wait_until(lambda: asked_of_pod(kube, "lone") == "hello from one alone\n", "the right is back, and used", 60)


@pytest.fixture(scope="module")
def lone(kube: Tunnelled) -> str:
    """The address of a pod of that name, which no service has."""
    own = workloads.pod("lone", workloads.web(page="hello from one alone"), node="site-b")
    kube.kubernetes.control.api.apply(own)
    kube.kubectl("wait", "pod", "lone", "--for=condition=Ready", "--timeout=30s", timeout_s=40)
    return address_of(kube, "lone")


@pytest.mark.usefixtures("lone", "without_the_right_to_see_pods")
class TestWithoutTheRightToSeePods:
    def test_one_line_says_so(self, kube: Tunnelled) -> None:
        line = kube.cluster.server.wait_for_log("lets this account read none")
        assert "podCIDR" in line
        assert "pods is forbidden" in line

    def test_a_pod_of_a_service_is_found_by_it(self, kube: Tunnelled) -> None:
        wait_until(lambda: sites_of_service(kube) == set(SITES), "the service leads to both sites", KNOWN_S)
        assert asked_of_pod(kube, "app-site-b") == "hello from site-b\n"

    def test_any_other_is_not_and_kubectl_says_why(self, kube: Tunnelled, lone: str) -> None:
        said = asked_of_pod(kube, "lone")
        assert f"no agent for {lone}" in said
        assert "pods are not known: the account may not list and watch them" in said
