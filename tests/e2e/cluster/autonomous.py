"""A node whose kubelet and kube-proxy ask the API server through the agent, in a site whose way out can be cut."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import site
from tests.e2e.cluster.kubernetes import Kubernetes, kubernetes
from tests.e2e.cluster.namespaces import NodeFailed
from tests.e2e.cluster.node import Node
from tests.support.cluster import Box, Cluster, cluster
from tests.support.netns import BoxNamespace
from tests.support.processes import BIN
from tests.support.tunnel import wait_until

SITE = "site-a"
PORT = 6440


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
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
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


@contextlib.contextmanager
def autonomous_node() -> Iterator[Edge]:
    """A cluster of one node, which goes through the proxy; the daemons' logs are shown beside a failed test."""
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
