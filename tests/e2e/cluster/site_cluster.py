"""A small cluster that is all at a site, as K3s would be, and somebody elsewhere who uses it through the tunnel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.cluster import site, workloads
from tests.e2e.cluster.kubernetes import Kubernetes, kubernetes
from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.tunnel import wait_until

SITE = "site-a"
POD = "app"


@dataclass(kw_only=True)
class SiteCluster(KubectlUser):
    """What `site_cluster()` made."""

    kubernetes: Kubernetes
    """Seen from inside the site."""
    cluster: Cluster
    """The cloud server, and the agent of the site."""
    folder: Path
    kubeconfig: Path
    """As `cloud-server user kubeconfig --cluster` has made it."""

    def logs(self) -> str:
        """The tails of all logs, for people."""
        return f"{self.kubernetes.logs()}\n{self.cluster.logs()}"


@contextlib.contextmanager
def site_cluster() -> Iterator[SiteCluster]:
    """A cluster with the pod `POD`, ready; everything is gone at the end."""
    with contextlib.ExitStack() as stack:
        routers = stack.enter_context(site.routers([SITE]))
        cloud = stack.enter_context(cluster(host=site.outside(routers)))
        kube = stack.enter_context(kubernetes(routers, at=SITE))
        # The kubeconfig of the site says 127.0.0.1, which only the site knows to be its own.
        own = {"name": SITE, "kubeconfig": str(kube.kubeconfig)}
        (port,) = free_ports(1, cloud.host)
        cloud.configure({"connect": {"listen_kubectl": f"{cloud.host}:{port}"}, "cluster": [own]})
        cloud.start()
        allow = [urlsplit(kube.control.api.server).netloc]
        cloud.join(SITE, allow=allow, prefix=kube.nodes[SITE].namespaces.enter_network)
        cloud.start_box(SITE)
        path = cloud.folder / f"{SITE}.kubeconfig"
        how = ("ann", "--cluster", SITE)
        cloud.typed("user", "add", "ann")
        path.write_text(cloud.typed("user", "kubeconfig", *how))
        made = SiteCluster(kubernetes=kube, cluster=cloud, folder=kube.folder, kubeconfig=path)
        # A running server looks for new tokens once a second.
        wait_until(lambda: made.run_kubectl("get", "nodes").returncode == 0, "the token is known")
        containers = (workloads.shell(), workloads.counter(), workloads.web(page="hello from inside"))
        kube.control.api.apply(workloads.pod(POD, *containers, node=SITE))
        made.kubectl("wait", "pod", POD, "--for=condition=Ready", "--timeout=60s", timeout_s=70)
        yield made
