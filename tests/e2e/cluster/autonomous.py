"""A node whose kubelet and kube-proxy ask the API server through the agent, in a site whose way out can be cut."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import build, coredns, kinds_of_pods, site
from tests.e2e.cluster.kinds_of_pods import Kind
from tests.e2e.cluster.kubernetes import Kubernetes, kubernetes
from tests.e2e.cluster.namespaces import NodeFailed
from tests.e2e.cluster.node import Node
from tests.e2e.cluster.steady_requests import SteadyRequests
from tests.support.cgroup2 import own_cgroup
from tests.support.cluster import Box, Cluster, cluster
from tests.support.netns import BoxNamespace
from tests.support.processes import BIN
from tests.support.tunnel import wait_until

SITE = "site-a"
PORT = 6440
READER = Path(__file__).parents[3] / "deploy" / "node" / "reader.yaml"
LEASE_S = 8
"""How long the lease of the node lasts: when it is cut off, the cloud takes its pods for not ready after that."""


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
        return kubeconfigs(self.node)

    def autonomy(self, word: str) -> str:
        """`edge-agent autonomy`, typed on the node."""
        return typed(self.node, self.box, word)

    def connections(self) -> set[str]:
        """The kubelet's ends of its connections to the proxy."""
        lines = self.node.namespaces.run("ss", "-Htn", "state", "established", f"dport = :{PORT}").splitlines()
        return {line.split()[2] for line in lines}

    def service(self, name: str) -> str:
        """What a Service's address answers on the node, by the rules of kube-proxy."""
        address = self.kube.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
        return self.fetch(address, 80)

    def leads_to(self, address: str) -> bool:
        """Whether kube-proxy's rules lead something to an address, in either of its modes."""
        return f"{address}:8080" in self.node.namespaces.run("sh", "-c", "iptables-save -t nat; nft list ruleset")

    @contextlib.contextmanager
    def asking(self, service: str) -> Iterator[SteadyRequests]:
        """A client on the node that asks a Service's address all the time.

        It must lead to a pod: a port by which somebody was led nowhere is led there again, for two minutes.
        """
        address = self.kube.kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
        log = self.node.folder / f"requests-{time.monotonic_ns()}.log"
        requests = SteadyRequests(self.node.namespaces.enter_network, address, log)
        try:
            yield requests
        finally:
            requests.close()

    def resolve(self, service: str) -> set[str]:
        """The addresses that the node's CoreDNS has for a Service; none when it has no answer."""
        name = f"{service}.default.svc.cluster.local."
        try:
            said = self.node.namespaces.run("busybox", "nslookup", "-type=a", name, coredns.ADDRESS)
        except NodeFailed:
            return set()
        return {line.split()[1] for line in said.partition("Name:")[2].splitlines() if line.startswith("Address:")}

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

    def is_up_again(self, name: str, namespace: str = "default") -> bool:
        """Whether a pod is ready after it was started again, as the node's proxy shows it."""
        try:
            status = json.loads(self.ask(f"/api/v1/namespaces/{namespace}/pods/{name}"))["status"]
        except (NodeFailed, ValueError, KeyError):
            return False
        has_restarted = any(one["restartCount"] for one in status.get("containerStatuses", []))
        return has_restarted and ("Ready", "True") in [(one["type"], one["status"]) for one in status["conditions"]]

    def endpoints(self, service: str) -> set[tuple[str, bool]]:
        """The addresses of a Service in the cloud, and whether they are ready."""
        label = f"kubernetes.io/service-name={service}"
        said = json.loads(self.kube.kubectl("get", "endpointslices", "-l", label, "-o", "json"))
        return {
            (one["addresses"][0], one["conditions"]["ready"])
            for item in said["items"]
            for one in item.get("endpoints") or []
        }

    @functools.cached_property
    def kinds(self) -> list[Kind]:
        """Ten pods of the node, made when they are wanted first."""
        return kinds_of_pods.make_all(self.kube, self.node)

    def page(self, name: str, port: int = 8080) -> str:
        """What a pod serves, asked on its own node at the address that it has now."""
        try:
            address = self.pod(name)["status"].get("podIP", "")
        except NodeFailed:
            return ""
        return self.fetch(address, port)

    def serves(self, kind: Kind) -> bool:
        """Whether a pod serves what it needs the cluster for."""
        return kind.words in self.page(kind.name, kind.port)


def kubeconfigs(node: Node) -> list[Path]:
    """What leads the components of a node to the API server."""
    return [node.home / f"{name}.kubeconfig" for name in ("kubelet", "kube-proxy")]


def typed(node: Node, box: Box, word: str) -> str:
    """What `edge-agent autonomy WORD` prints on a node."""
    named = [option for path in kubeconfigs(node) for option in ("--kubeconfig", str(path))]
    argv = [str(BIN / "edge-agent"), "autonomy", word, "--config", str(box.config), *named]
    done = subprocess.run([*node.namespaces.enter_network, *argv], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def lead(kube: Kubernetes, node: Node, box: Box, server: str) -> None:
    """Have the kubelet and the kube-proxy of a node ask its agent, which runs, and asks the API server at `server`."""
    pki = kube.control.pki
    certificate, key = pki.issue("kubelet-client", f"system:node:{node.name}", group="system:nodes", into=box.state)
    kube.kubectl("apply", "-f", str(READER))
    shared = box.state / "reader.token"
    shared.write_text(kube.kubectl("create", "token", "node-reader", "-n", "longline"))
    box.configure({
        "autonomy": {
            "listen": f"127.0.0.1:{PORT}", "server": server, "ca": str(pki.ca),
            "client_cert": str(certificate), "client_key": str(key), "shared_token": str(shared),
            "kubelet_cgroup": str(own_cgroup() or "/none"),
        }
    })  # fmt: skip
    wait_until(lambda: f":{PORT}" in node.namespaces.run("ss", "-Hltn"), "the proxy listens", 20)
    account = {"name": "kube-proxy", "namespace": "kube-system"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"}
    kube.control.api.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "kube-proxy"}, "roleRef": role, "subjects": [{"kind": "ServiceAccount", **account}],
        },
    )  # fmt: skip
    node.restart(proxy_token=kube.kubectl("create", "token", "kube-proxy", "-n", "kube-system").strip())
    assert f"leads to https://127.0.0.1:{PORT}, before: " in typed(node, box, "enable")
    node.restart()


@contextlib.contextmanager
def autonomous_node() -> Iterator[Edge]:
    """A cluster of one node, which goes through the proxy; the daemons' logs are shown beside a failed test."""
    with contextlib.ExitStack() as stack:
        routers = stack.enter_context(site.routers([SITE]))
        kube = stack.enter_context(kubernetes(routers, lease_s=LEASE_S))
        made = stack.enter_context(cluster(host=site.outside(routers)))
        made.start()
        node = kube.nodes[SITE]
        box = made.join(SITE, prefix=node.namespaces.enter_network)
        made.start_box(SITE)
        lead(kube, node, box, kube.control.api.server.removeprefix("https://"))
        one = Edge(kube=kube, made=made, box=box)
        coredns.provide(node.home, build.coredns())
        authority = (box.state / "api-proxy.crt").read_bytes()
        kube.control.api.apply(*coredns.manifests(SITE, f"https://127.0.0.1:{PORT}", authority))
        try:
            yield one
        except BaseException as error:
            error.add_note(one.made.logs())
            raise
