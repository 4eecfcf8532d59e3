"""A whole Kubernetes: the control plane on this machine, and one node at each edge site."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import build, images, site
from tests.e2e.cluster.control_plane import POD_CIDR, ControlPlane, control_plane
from tests.e2e.cluster.node import Node, node
from tests.e2e.cluster.pki import ClusterPki
from tests.e2e.cluster.workplace import workplace
from tests.support.kubectl_user import KubectlUser
from tests.support.netns import BoxNamespace
from tests.support.tunnel import wait_until

SITES = ("site-a", "site-b")
POD_CIDRS = {name: POD_CIDR.replace("0.0/16", f"{index}.0/24") for index, name in enumerate(SITES, 1)}
READY_S = 60.0


@dataclass(kw_only=True)
class Kubernetes(KubectlUser):
    """What `kubernetes()` made."""

    folder: Path
    kubeconfig: Path
    """Of an administrator, who talks with the API server directly."""
    prefix: Sequence[str]
    control: ControlPlane
    nodes: dict[str, Node]
    """By name; each is alone at a site that has the node's name."""
    routers: dict[str, BoxNamespace]
    """Of the sites."""

    def logs(self) -> str:
        """The tails of all logs, for people."""
        return "\n".join([self.control.logs(), *(node.logs() for node in self.nodes.values())])


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNetworks:
    """Which addresses the pods of each site get, and who knows that."""

    cidrs: Mapping[str, str]
    """By the name of the site."""
    in_nodes: bool = True
    """Whether each node's is its `podCIDR`; else it is known to the node's CNI alone."""
    endpoint_routing: bool = False
    """See `Setting`."""

    @property
    def cluster_cidr(self) -> str | None:
        """What kube-proxy is told of them all; None for nothing."""
        return POD_CIDR if self.in_nodes else None


OF_NODES = PodNetworks(cidrs=POD_CIDRS)


@contextlib.contextmanager
def kubernetes(
    routers: Mapping[str, BoxNamespace], egress: str | None = None, *, at: str | None = None,
    pods: PodNetworks = OF_NODES, lease_s: int | None = None,
) -> Iterator[Kubernetes]:  # fmt: skip
    """A cluster whose nodes are ready; everything is gone at the end.

    Args:
        routers: Of the sites, from `site.routers`; each gets a node of that name.
        egress: See `ApiServer`.
        at: The site that has the control plane too, in its node's network and on its loopback; None: this machine.
        pods: Their networks.
        lease_s: How long the leases of nodes last, after which they are taken for gone; None: as by default.
    """
    programs = build.programs()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(workplace(routers.values()))
        pki = ClusterPki(folder / "pki")
        archive = folder / "images.tar"
        images.write_archive(archive, build.backend())
        nodes = {
            name: stack.enter_context(node(name, folder / name, programs, pki, behind, lease_s=lease_s))
            for name, behind in routers.items()
        }
        prefix = nodes[at].namespaces.enter_network if at else []
        address = "127.0.0.1" if at else site.outside(routers)
        control = stack.enter_context(
            control_plane(
                folder / "cloud", programs, pki, address=address, nodes=routers, prefix=prefix, egress=egress,
                pod_cidrs=pods.in_nodes, endpoint_routing=pods.endpoint_routing, lease_s=lease_s,
            )
        )  # fmt: skip
        control.start()
        scratch = folder / "scratch"
        scratch.mkdir()
        made = Kubernetes(
            folder=scratch, kubeconfig=control.api.kubeconfig, prefix=prefix, control=control, nodes=nodes,
            routers=dict(routers),
        )  # fmt: skip
        try:
            _bring_up(made, pki, archive, pods)
            yield made
        except BaseException as error:
            error.add_note(made.logs())
            raise


def _bring_up(made: Kubernetes, pki: ClusterPki, archive: Path, pods: PodNetworks) -> None:
    for each in made.nodes.values():
        each.start(archive)
    made.control.wait_ready()
    for each in made.nodes.values():
        pod_cidr = pods.cidrs[each.name]
        each.set_pod_cidr(pod_cidr)
        spec = {"podCIDR": pod_cidr} if pods.in_nodes else {}
        # Known before it comes: so nobody has to wait until its pods are given a network.
        made.control.api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": each.name}, "spec": spec})
        user = f"system:node:{each.name}"
        own = made.control.folder / f"{each.name}.kubeconfig"
        each.start_kubelet(kubeconfig=pki.kubeconfig(own, made.control.api.server, user, group="system:nodes"))
        each.start_proxy(pki.kubeconfig(own, made.control.api.server, "system:kube-proxy"), pods.cluster_cidr)
    wait_until(lambda: _all_ready(made), "the nodes are ready", READY_S)
    account = ("get", "serviceaccount", "default")
    wait_until(lambda: made.run_kubectl(*account).returncode == 0, "pods may be created", READY_S)


def _all_ready(made: Kubernetes) -> bool:
    path = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
    ready = made.kubectl("get", "nodes", "-o", f"jsonpath={path}").split()
    return ready == ["True"] * len(made.nodes)
