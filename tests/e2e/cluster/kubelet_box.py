"""A box with a real kubelet but no cluster: its static pods are reached through the fleet API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import build, images, site, workloads
from tests.e2e.cluster.node import Node, node
from tests.e2e.cluster.pki import ClusterPki
from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.netns import BoxNamespace

BOX = "box-k"
OWN_NAME = f"app-{BOX}"
"""A kubelet adds its own name to that of a static pod."""
POD = f"{OWN_NAME}.{BOX}"
"""The name in the fleet."""
POD_CIDR = "10.244.1.0/24"


@dataclass(kw_only=True)
class KubeletBox(KubectlUser):
    """What `kubelet_box()` made."""

    cluster: Cluster
    """The cloud server, and the agent of the box."""
    node: Node
    router: BoxNamespace
    folder: Path
    kubeconfig: Path

    def logs(self) -> str:
        """The tails of all logs, for people."""
        return f"{self.cluster.logs()}\n{self.node.logs()}"


@contextlib.contextmanager
def kubelet_box() -> Iterator[KubeletBox]:
    """A box that is up, with the pod `POD` about to start; everything is gone at the end."""
    programs = build.programs()
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(site.router())
        made = stack.enter_context(cluster(host=behind.host_address))
        archive = made.folder / "images.tar"
        images.write_archive(archive)
        pki = ClusterPki(made.folder / "pki")
        box = stack.enter_context(node(BOX, made.folder / "node", programs, pki, behind))
        box.start(archive)
        box.set_pod_cidr(POD_CIDR)
        box.add_static_pod(workloads.pod("app", workloads.shell(), workloads.counter(), workloads.web()))
        box.start_kubelet()
        made.start()
        agent = made.join(BOX, prefix=box.namespaces.enter_network)
        agent.configure({"kubelet": box.client_certificate()})
        made.start_box(BOX)
        folder = made.folder / "scratch"
        folder.mkdir()
        yield KubeletBox(cluster=made, node=box, router=behind, folder=folder, kubeconfig=made.kubeconfig())
