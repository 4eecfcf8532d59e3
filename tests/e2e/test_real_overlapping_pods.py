"""Two sites whose pods have the same addresses, which no Node tells of: their CNIs know nothing of each other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import requirements, workloads
from tests.e2e.cluster.backend import FORBIDDEN, KNOWN_S, available, backend, create, wait_until_asked
from tests.e2e.cluster.kubernetes import SITES, PodNetworks
from tests.e2e.cluster.tunnelled import Tunnelled, tunnelled
from tests.support.connect_client import ConnectRefused
from tests.support.port_forward import forwarding, get
from tests.support.tunnel import wait_until

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(90, func_only=True)

PODS = PodNetworks(cidrs=dict.fromkeys(SITES, "10.88.1.0/24"), in_nodes=False)
both = pytest.mark.parametrize("where", SITES)


@pytest.fixture(scope="module")
def kube() -> Iterator[Tunnelled]:
    """A cluster of its own, with a service at each site for the pod there."""
    if reason := requirements.missing():
        pytest.skip(reason)
    with tunnelled(pods=PODS) as made:
        for where in SITES:
            made.kubernetes.control.api.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": f"hello-{where}", "namespace": "default"},
                    "spec": {"selector": {"site": where}, "ports": [{"port": 80, "targetPort": 8080}]},
                }
            )
        yield made


@pytest.fixture(scope="module")
def address(kube: Tunnelled) -> str:
    """That of both pods."""
    pods = [addresses(kube)[f"app-{where}"] for where in SITES]
    assert len(set(pods)) == 1
    return pods[0]


def addresses(kube: Tunnelled) -> dict[str, str]:
    """Of each pod, by its name."""
    pods = json.loads(kube.kubectl("get", "pods", "-o", "json"))["items"]
    return {pod["metadata"]["name"]: pod["status"].get("podIP", "") for pod in pods}


def page(kube: Tunnelled, authority: str) -> bytes:
    """What a web server answers to whoever dials so."""
    with kube.cluster.dial(authority) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer.partition(b"\r\n\r\n")[2]


def test_an_address_of_both_is_refused_and_kubectl_says_what_to_do(kube: Tunnelled, address: str) -> None:
    asked = kube.run_kubectl("get", "--raw", "/api/v1/namespaces/default/pods/app-site-a:8080/proxy/")
    assert asked.returncode == 1
    said = asked.stderr.decode()
    assert f"{address} is " in said
    for where in SITES:
        assert f"node {where}" in said
    assert f"dial {address}.site-a.longline:8080" in said
    with pytest.raises(ConnectRefused) as caught:
        kube.cluster.dial(f"{address}:8080")
    assert caught.value.status == 409


@both
def test_that_is_true(kube: Tunnelled, address: str, where: str) -> None:
    assert page(kube, f"{address}.{where}.longline:8080") == f"hello from {where}\n".encode()


@both
def test_a_service_leads_to_its_own_pod_by_name_and_by_cluster_ip(kube: Tunnelled, address: str, where: str) -> None:
    cluster_ip = kube.kubectl("get", "service", f"hello-{where}", "-o", "jsonpath={.spec.clusterIP}")
    expected = f"hello from {where}\n".encode()
    for authority in (f"hello-{where}.default.svc:80", f"{cluster_ip}:80"):
        assert {page(kube, authority) for _ in range(4)} == {expected}


@both
def test_what_goes_by_the_name_of_the_node_is_as_ever(kube: Tunnelled, where: str) -> None:
    ask = ("exec", f"app-{where}", "-c", "shell", "--", "hostname")
    assert kube.kubectl(*ask) == f"app-{where}\n"
    with forwarding(kube, f"app-{where}") as port:
        assert get(port) == f"hello from {where}\n".encode()


def test_webhooks_and_aggregated_apis(kube: Tunnelled) -> None:
    control = kube.kubernetes.control
    with backend(kube, "site-a", control) as one, backend(kube, "site-b", control) as other:
        where = addresses(kube)
        assert where[one.name] == where[other.name]
        for made in (one, other):
            wait_until_asked(kube, made)
            assert f"{made.name} forbids it" in create(kube, "asked", made.where, **{FORBIDDEN: ""}).stderr.decode()
            wait_until(lambda made=made: available(kube, made), "the API is available", KNOWN_S)  # type: ignore[misc]
            got = kube.kubectl("get", f"readings.{made.group}", "-o", "name")
            assert got == f"reading.{made.group}/{made.name}\n"


def test_an_address_that_only_one_pod_has(kube: Tunnelled) -> None:
    """Whatever the networks are: of this one there is no doubt."""
    lone = workloads.pod("lone", workloads.web(page="hello from one alone"), node="site-b")
    kube.kubernetes.control.api.apply(lone)
    try:
        kube.kubectl("wait", "pod", "lone", "--for=condition=Ready", "--timeout=30s", timeout_s=40)
        assert list(addresses(kube).values()).count(addresses(kube)["lone"]) == 1
        asked = kube.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/lone:8080/proxy/")
        assert asked == "hello from one alone\n"
    finally:
        kube.kubectl("delete", "pod", "lone", "--now")
