"""A node whose kubelet asks the API server through the agent, when the way to the cloud is cut and when it is back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import site, workloads
from tests.e2e.cluster.kubernetes import Kubernetes, kubernetes
from tests.e2e.cluster.namespaces import NodeFailed
from tests.e2e.cluster.node import Node
from tests.support.agent_status import status_of
from tests.support.cluster import Box, Cluster, cluster
from tests.support.netns import BoxNamespace
from tests.support.processes import BIN
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SITE = "site-a"
PORT = 6440
PODS = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{SITE}"


@dataclass(kw_only=True)
class Edge:
    """A node behind a router, and the cluster that it is part of."""

    kube: Kubernetes
    made: Cluster
    box: Box

    @property
    def node(self) -> Node:
        return self.kube.nodes[SITE]

    @property
    def router(self) -> BoxNamespace:
        return self.kube.routers[SITE]

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """The way out of the site takes everything and brings nothing."""
        for chain in ("FORWARD", "OUTPUT", "INPUT"):
            self.router.run("iptables", "-w", "-I", chain, "-j", "DROP")
        try:
            yield
        finally:
            for chain in ("FORWARD", "OUTPUT", "INPUT"):
                self.router.run("iptables", "-w", "-D", chain, "-j", "DROP")

    @property
    def kubeconfigs(self) -> list[Path]:
        return [self.node.home / f"{name}.kubeconfig" for name in ("kubelet", "kube-proxy")]

    def autonomy(self, word: str) -> str:
        """`edge-agent autonomy`, typed on the node."""
        named = [option for path in self.kubeconfigs for option in ("--kubeconfig", str(path))]
        argv = [str(BIN / "edge-agent"), "autonomy", word, "--config", str(self.box.config), *named]
        done = subprocess.run([*self.node.namespaces.enter_network, *argv], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def connections(self) -> set[str]:
        """The kubelet's ends of its connections to the proxy."""
        lines = self.node.namespaces.run("ss", "-Htn", "state", "established", f"dport = :{PORT}").splitlines()
        return {line.split()[2] for line in lines}

    def service(self, name: str) -> str:
        """What a Service's address answers on the node, by the rules of kube-proxy."""
        address = self.kube.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
        return self.fetch(address, 80)

    def fetch(self, address: str, port: int) -> str:
        """A page, asked on the node; empty when there is none."""
        try:
            return self.node.namespaces.run("curl", "-sf", "--max-time", "2", f"http://{address}:{port}/")
        except NodeFailed:
            return ""

    def is_ready(self) -> bool:
        """Whether the cloud sees the node ready."""
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self.kube.kubectl("get", "node", SITE, "-o", path) == "True"

    def ask_head(self, path: str) -> str:
        """The head of the proxy's answer."""
        return self.ask(path, "--head", "-X", "GET")

    def pod_ids(self) -> set[str]:
        """The containers that run on the node, pauses left out."""
        return set(self.node.ctr("tasks", "list", "--quiet").split())

    def ask(self, path: str, *options: str) -> str:
        """The proxy's answer to the kubelet's certificate."""
        certificate = self.box.state / "kubelet-client.crt"
        return self.node.namespaces.run(
            "curl", "-sk", "--cert", str(certificate), "--key", str(certificate.with_suffix(".key")),
            *options, f"https://127.0.0.1:{PORT}{path}",
        )  # fmt: skip

    def pod(self, name: str) -> dict[str, Any]:
        """A pod as the node's proxy shows it."""
        return dict(json.loads(self.ask(f"/api/v1/namespaces/default/pods/{name}")))

    def page(self, name: str) -> str:
        """What a pod serves, asked on its own node at the address that it has now."""
        try:
            address = self.pod(name)["status"].get("podIP", "")
        except NodeFailed:
            return ""
        return self.fetch(address, 8080)


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with contextlib.ExitStack() as stack:
        routers = stack.enter_context(site.routers([SITE]))
        kube = stack.enter_context(kubernetes(routers))
        made = stack.enter_context(cluster(host=site.outside(routers)))
        made.start()
        node = kube.nodes[SITE]
        box = made.join(SITE, prefix=node.namespaces.enter_network)
        pki = kube.control.pki
        certificate, key = pki.issue("kubelet-client", f"system:node:{SITE}", group="system:nodes", into=box.state)
        box.configure({
            "autonomy": {
                "listen": f"127.0.0.1:{PORT}", "server": kube.control.api.server.removeprefix("https://"),
                "ca": str(pki.ca), "client_cert": str(certificate), "client_key": str(key),
            }
        })  # fmt: skip
        made.start_box(SITE)
        wait_until((box.state / "api-proxy.crt").exists, "the proxy has a certificate")
        kube.kubectl("create", "serviceaccount", "kube-proxy", "-n", "kube-system")
        kube.kubectl("create", "clusterrolebinding", "kube-proxy", "--clusterrole=system:node-proxier",
                     "--serviceaccount=kube-system:kube-proxy")  # fmt: skip
        token = kube.kubectl("create", "token", "kube-proxy", "-n", "kube-system").strip()
        node.restart(proxy_token=token)
        one = Edge(kube=kube, made=made, box=box)
        assert "leads to https://127.0.0.1:6440, before: " in one.autonomy("enable")
        node.restart()
        try:
            yield one
        except BaseException as error:
            error.add_note(one.made.logs())
            raise


def test_pods_start_and_their_state_is_seen(edge: Edge) -> None:
    edge.kube.kubectl("create", "configmap", "settings", "--from-literal", "greeting=hello")
    edge.kube.kubectl("create", "secret", "generic", "password", "--from-literal", "word=xyzzy")
    serve = "mkdir /www && (env; cat /secret/word) > /www/index.html && exec httpd -f -p 8080 -h /www"
    pod = workloads.pod("app", workloads.container(
        "web", "sh", "-c", serve,
        env=[{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}}],
        volumeMounts=[{"name": "secret", "mountPath": "/secret"}],
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


def test_a_kubelet_that_starts_without_the_cloud_kills_nothing(edge: Edge) -> None:
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
    wait_until(edge.is_ready, "the node is ready again", 60)
    assert edge.pod_ids() == before


def test_a_node_that_boots_without_the_cloud_runs_its_pods_again(edge: Edge) -> None:
    before = edge.pod("app")
    with edge.cut():
        edge.node.power_cut()
        edge.box.agent.kill()
        start = time.monotonic()
        edge.box.agent.start()
        edge.node.boot()
        wait_until(lambda: "xyzzy" in edge.page("app"), "the pod runs again", 90)
        print(f"after {time.monotonic() - start:.1f} s")
        wait_until(lambda: "xyzzy" in edge.service("app"), "the Service leads to its new address", 15)
        _, status = status_of(edge.box)
        autonomy = status["autonomy"]
        assert not autonomy["reached"]
        assert all(scope["complete"] and scope["kept"] for scope in autonomy["scopes"]), autonomy
        assert {"node", "system:serviceaccount:kube-system:kube-proxy"} <= {one["who"] for one in autonomy["scopes"]}
        assert autonomy["waiting"]["statuses"]
        assert autonomy["lease_seen"] is not None
        after = edge.pod("app")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["status"]["containerStatuses"][0]["restartCount"] == 1
    wait_until(edge.is_ready, "the node is ready again", 60)
    path = "{.status.containerStatuses[0].restartCount} {.status.podIP}"
    wanted = f"1 {edge.pod('app')['status']['podIP']}"
    wait_until(
        lambda: edge.kube.kubectl("get", "pod", "app", "-o", f"jsonpath={path}") == wanted, "the cloud knows of it", 60
    )
    assert "xyzzy" in edge.service("app")
    wait_until(lambda: not any(status_of(edge.box)[1]["autonomy"]["waiting"].values()), "all was told", 30)
    names = edge.kube.kubectl("get", "events", "--field-selector", "involvedObject.name=app", "-o", "name")
    assert len(names.split()) > 3, "also what happened without the cloud"


def test_the_node_is_led_back_to_the_api_server(edge: Edge) -> None:
    before = edge.pod_ids()
    assert edge.autonomy("disable").count("again") == 2
    for path in edge.kubeconfigs:
        assert f"127.0.0.1:{PORT}" not in path.read_text()
        assert not path.with_name(f"{path.name}.before-longline").exists()
    edge.node.restart()
    edge.box.agent.kill()
    lease = ("get", "lease", "-n", "kube-node-lease", SITE, "-o", "jsonpath={.spec.renewTime}")
    seen = edge.kube.kubectl(*lease)
    wait_until(lambda: edge.kube.kubectl(*lease) != seen, "the kubelet renews its lease itself", 40)
    assert edge.pod_ids() == before
