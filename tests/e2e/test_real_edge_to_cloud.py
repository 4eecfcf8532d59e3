"""A node whose only way to kube-apiserver is a port of its agent: nothing else leaves its site."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import autonomous, tunnelled, workloads
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.support.agent_status import status_of
from tests.support.cluster import Box
from tests.support.tunnel import wait_until

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(120, func_only=True)

WHERE = "site-b"
SHELL = (f"app-{WHERE}", "-c", "shell")
RENEWED_S = 25.0
"""A kubelet tells every 10 s that it lives."""
CUT_S = 20.0


@pytest.fixture(scope="module")
def kube(kube: Tunnelled) -> Iterator[Tunnelled]:
    """The cluster of all, with one site that is reached, and reaches the cloud, by the tunnel alone."""
    node, direct = kube.kubernetes.nodes[WHERE], kube.kubernetes.control.api.server
    try:
        with kube.nothing_but_the_tunnel(WHERE):
            node.use_api_server(f"https://{tunnelled.LISTEN}")
            wait_until_renewed(kube)
            yield kube
    finally:
        node.use_api_server(direct)
        wait_until_renewed(kube)


def wait_until_renewed(kube: Tunnelled) -> None:
    """Wait until the node says anew that it lives."""
    last = renewed(kube)
    wait_until(lambda: renewed(kube) != last, "the node tells that it lives", RENEWED_S)


def renewed(kube: Tunnelled) -> str:
    return kube.kubectl("get", "lease", WHERE, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}")


def ready(kube: Tunnelled) -> str:
    """Whether the node is ready, and since when."""
    condition = '{.status.conditions[?(@.type=="Ready")]'
    path = f"jsonpath={condition}.status}} {condition}.lastTransitionTime}}"
    return kube.kubectl("get", "node", WHERE, "-o", path)


def test_nothing_else_leads_out(kube: Tunnelled) -> None:
    host, _, port = kube.kubernetes.control.api.server.removeprefix("https://").partition(":")
    dial = f"import socket; socket.create_connection(('{host}', {port}), 1)"
    with pytest.raises(Exception, match="timed out"):
        kube.kubernetes.nodes[WHERE].namespaces.run("python3", "-c", dial)


def test_the_node_is_ready(kube: Tunnelled) -> None:
    wait_until_renewed(kube)
    assert ready(kube).startswith("True")
    kube.cluster.server.wait_for_log(f'"kind":"agent","who":"{WHERE}"')


def test_pods_run_and_are_reached(kube: Tunnelled) -> None:
    kube.kubernetes.control.api.apply(workloads.pod("new", workloads.shell(), workloads.counter(), node=WHERE))
    try:
        kube.kubectl("wait", "pod", "new", "--for=condition=Ready", "--timeout=30s", timeout_s=40)
        assert kube.kubectl("exec", "new", "-c", "shell", "--", "hostname") == "new\n"
        assert kube.kubectl("logs", "new", "-c", "counter").startswith("line 1\n")
    finally:
        kube.kubectl("delete", "pod", "new")


def test_services_work_inside_the_site(kube: Tunnelled) -> None:
    metadata = {"name": "told", "namespace": "default"}
    spec = {"selector": {"site": WHERE}, "ports": [{"port": 80, "targetPort": 8080}]}
    kube.kubernetes.control.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    try:
        address = kube.kubectl("get", "service", "told", "-o", "jsonpath={.spec.clusterIP}")
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} 80"
        fetch = ("exec", *SHELL, "--", "sh", "-c", ask)
        page = f"hello from {WHERE}\n".encode()
        wait_until(lambda: kube.run_kubectl(*fetch).stdout.endswith(page), "kube-proxy knows it", 20)
    finally:
        kube.kubectl("delete", "service", "told")


def test_a_link_that_is_cut(kube: Tunnelled) -> None:
    wait_until_renewed(kube)
    before = ready(kube)
    try:
        with kube.cut(WHERE):
            kube.kubernetes.control.api.apply(workloads.pod("late", workloads.shell(), node=WHERE))
            time.sleep(CUT_S)  # the fault itself
            assert kube.kubectl("get", "pod", "late", "-o", "jsonpath={.status.phase}") == "Pending"
        kube.kubectl("wait", "pod", "late", "--for=condition=Ready", "--timeout=30s", timeout_s=40)
        wait_until_renewed(kube)
        assert ready(kube) == before
        assert kube.kubectl("exec", "late", "--", "hostname") == "late\n"
    finally:
        kube.kubectl("delete", "pod", "late")


def test_a_node_that_asks_its_agent_starts_while_the_tunnel_is_cut(kube: Tunnelled) -> None:
    node, box = kube.kubernetes.nodes[WHERE], kube.cluster.boxes[WHERE]
    autonomous.lead(kube.kubernetes, node, box, tunnelled.LISTEN)
    try:
        wait_until_renewed(kube)
        wait_until(lambda: _parts(box)["pods"], "its pods are kept", 20)
        running = set(node.ctr("tasks", "list", "--quiet").split())
        with kube.cut(WHERE):
            wait_until(lambda: not status_of(box)[1]["autonomy"]["reached"], "the cut is noticed", 30)
            node.kubelet.kill()
            node.kubelet.start()
            time.sleep(8)  # two seconds after a list a kubelet ends what is not in it
            assert set(node.ctr("tasks", "list", "--quiet").split()) == running
            assert all(_parts(box).values())
        wait_until_renewed(kube)
        assert kube.kubectl("exec", *SHELL, "--", "hostname") == f"app-{WHERE}\n"
    finally:
        autonomous.typed(node, box, "disable")
        node.restart()
        box.configure({"autonomy": None})


def _parts(box: Box) -> dict[str, bool]:
    """Which lists of the node itself would be answered without the cloud, by their resource."""
    scopes = status_of(box)[1]["autonomy"]["scopes"]
    kept = {one["name"].split(",")[0].split()[0]: one["complete"] and one["kept"] for one in scopes}
    return {"pods": False, **kept}
