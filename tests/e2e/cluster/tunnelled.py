"""Kubernetes with the tunnel as its only way to the nodes: kube-apiserver's egress goes to a cloud server's socket."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.cluster import deploy, egress, node_config, site, workloads
from tests.e2e.cluster.api_server import SERVICE_CIDR
from tests.e2e.cluster.kubernetes import OF_NODES, SITES, Kubernetes, PodNetworks, kubernetes
from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.netns import BoxNamespace

API_SERVER = "kube-apiserver"
"""What the cloud server exposes to the agents."""
LISTEN = "127.0.0.1:6443"
"""Where it is found on each node."""
ELSEWHERE = "198.51.100.1"
"""One more address of the cloud server, by its certificate; it leads nowhere until a test says where."""


@dataclass(kw_only=True)
class Tunnelled(KubectlUser):
    """What `tunnelled()` made."""

    kubernetes: Kubernetes
    cluster: Cluster
    """The cloud server, and an agent on each node that has the node's name."""
    folder: Path
    kubeconfig: Path

    @contextlib.contextmanager
    def cut(self, where: str) -> Iterator[None]:
        """Meanwhile nothing passes between a site and the cloud server, and neither of them is told.

        Raises:
            AssertionError: something passed, or nothing wanted to.
        """
        port = self.cluster.tunnel_port
        tunnel = [f"-p tcp --{end} {port}" for end in ("dport", "sport")]
        drop = [f"-t filter -I FORWARD {packets} -j DROP".split() for packets in tunnel]
        count = [f"-t mangle -I POSTROUTING {packets}".split() for packets in tunnel]
        router = self.kubernetes.routers[where]
        for rule in drop + count:
            router.run("iptables", "-w", *rule)
        try:
            yield
            assert _packets(router, "filter", "FORWARD", f"{port} -j DROP") > 0, "nothing wanted to pass the cut link"
            assert _packets(router, "mangle", "POSTROUTING", f"{port}") == 0, "something passed the cut link"
        finally:
            for rule in drop + count:
                router.run("iptables", "-w", *("-D" if word == "-I" else word for word in rule))

    @contextlib.contextmanager
    def nothing_but_the_tunnel(self, where: str) -> Iterator[None]:
        """Meanwhile nothing leaves a site but what its agent and the cloud server say to each other."""
        to_server = f"-d {self.cluster.host} -p tcp --dport {self.cluster.tunnel_port}"
        rules = [["FORWARD", "-i", "lan", "-j", "DROP"], f"FORWARD -i lan {to_server} -j ACCEPT".split()]
        router = self.kubernetes.routers[where]
        for rule in rules:
            router.run("iptables", "-w", "-I", *rule)
        try:
            yield
        finally:
            for rule in rules:
                router.run("iptables", "-w", "-D", *rule)

    def logs(self) -> str:
        """The tails of all logs, for people."""
        return f"{self.kubernetes.logs()}\n{self.cluster.logs()}"


@contextlib.contextmanager
def tunnelled(sites: Sequence[str] = SITES, pods: PodNetworks = OF_NODES) -> Iterator[Tunnelled]:
    """A cluster with a pod `app-SITE` on each node, all ready; everything is gone at the end."""
    with contextlib.ExitStack() as stack:
        routers = stack.enter_context(site.routers(sites))
        cloud = stack.enter_context(cluster(host=site.outside(routers), hosts=[ELSEWHERE]))
        kube = stack.enter_context(kubernetes(routers, egress.http_over_unix(cloud), pods=pods))
        server = kube.control.api.server
        own = deploy.account(kube, server, cloud.config.parent)
        exposed = {"target": urlsplit(server).netloc, "name": API_SERVER}
        cloud.configure({"kubernetes": {"kubeconfig": str(own)}, "expose": [exposed]})
        cloud.start()
        for name, node in kube.nodes.items():
            box = cloud.join(name, allow=_allowed(pods.cidrs[name]), prefix=node.namespaces.enter_network)
            box.configure({"listen": [{"listen": LISTEN, "target": API_SERVER}]})
            cloud.start_box(name)
            containers = (workloads.shell(), workloads.counter(), workloads.web(page=f"hello from {name}"))
            kube.control.api.apply(
                workloads.pod(f"app-{name}", *containers, node=name, labels={"app": "hello", "site": name})
            )
        kube.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s", timeout_s=70)
        yield Tunnelled(kubernetes=kube, cluster=cloud, folder=kube.folder, kubeconfig=kube.kubeconfig)


def _allowed(pods: str) -> list[str]:
    """What an agent lets kube-apiserver reach."""
    return [f"127.0.0.1:{node_config.KUBELET_PORT}", f"{pods}:*", f"{SERVICE_CIDR}:*"]


def _packets(router: BoxNamespace, table: str, chain: str, ending: str) -> int:
    """How many have met the rules of a chain that end so."""
    counted = re.compile(r"(.*) -c (\d+) \d+(.*)")
    rules = map(counted.fullmatch, router.run("iptables", "-w", "-t", table, "-vS", chain).splitlines())
    return sum(int(rule[2]) for rule in rules if rule and f"{rule[1]}{rule[3]}".endswith(ending))
