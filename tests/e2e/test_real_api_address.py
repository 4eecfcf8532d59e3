"""A node that has kube-apiserver's own address, where its agent listens: so it and its pods need only the tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.cluster import tunnelled, workloads
from tests.e2e.cluster.api_server import OWN_SERVICE
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.e2e.test_real_edge_to_cloud import WHERE, wait_until_renewed

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(120, func_only=True)

ASK = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {OWN_SERVICE} 443"


@pytest.fixture(scope="module")
def kube(kube: Tunnelled) -> Iterator[Tunnelled]:
    """The cluster of all, with one node as docs/howto/kubeadm.md has it; its agent finds the cloud elsewhere."""
    node, router, cloud = kube.kubernetes.nodes[WHERE], kube.kubernetes.routers[WHERE], kube.cluster
    api = urlsplit(kube.kubernetes.control.api.server).netloc
    elsewhere = f"PREROUTING -i lan -d {tunnelled.ELSEWHERE} -j DNAT --to-destination {cloud.host}".split()
    own = f"{api.partition(':')[0]}/32 dev lo".split()
    router.run("iptables", "-w", "-t", "nat", "-A", *elsewhere)
    try:
        with kube.nothing_but_the_tunnel(WHERE):
            node.namespaces.run("ip", "address", "replace", *own)
            restart(kube, f"{tunnelled.ELSEWHERE}:{cloud.tunnel_port}", listen=api)
            node.use_api_server(kube.kubernetes.control.api.server)  # as before: only its old connections end
            wait_until_renewed(kube)
            yield kube
    finally:
        node.namespaces.run("ip", "address", "del", *own)
        router.run("iptables", "-w", "-t", "nat", "-D", *elsewhere)
        restart(kube, cloud.tunnel_address, listen=tunnelled.LISTEN)
        node.use_api_server(kube.kubernetes.control.api.server)
        wait_until_renewed(kube)


def restart(kube: Tunnelled, server: str, *, listen: str) -> None:
    """Start the node's agent anew, with another way to the cloud and another port for kube-apiserver."""
    box = kube.cluster.boxes[WHERE]
    box.configure(
        {"cloud": {"servers": [server]}, "listen": [{"listen": listen, "target": tunnelled.API_SERVER}]}
    )  # fmt: skip
    box.agent.kill()
    kube.cluster.start_box(WHERE)


def test_the_kubelet_goes_on_as_it_was_set_up(kube: Tunnelled) -> None:
    config = (kube.kubernetes.nodes[WHERE].home / "kubelet.kubeconfig").read_text()
    assert kube.kubernetes.control.api.server in config
    wait_until_renewed(kube)
    kube.cluster.server.wait_for_log(f'"kind":"agent","who":"{WHERE}"')


def test_pods_reach_the_api_by_its_service(kube: Tunnelled) -> None:
    answer = kube.kubectl("exec", f"app-{WHERE}", "-c", "shell", "--", "sh", "-c", ASK)
    assert "HTTP request to an HTTPS server" in answer


def test_new_pods_run(kube: Tunnelled) -> None:
    kube.kubernetes.control.api.apply(workloads.pod("newer", workloads.shell(), node=WHERE))
    try:
        kube.kubectl("wait", "pod", "newer", "--for=condition=Ready", "--timeout=30s", timeout_s=40)
        assert "HTTP request to an HTTPS server" in kube.kubectl("exec", "newer", "--", "sh", "-c", ASK)
    finally:
        kube.kubectl("delete", "pod", "newer")
