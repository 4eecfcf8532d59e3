"""A server and a box behind NAT for the end-to-end tests, with a stock kubectl for it."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import Box, Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.netns import BoxNamespace, box_namespace, missing_for_namespaces
from tests.support.relay_process import RelayProcess
from tests.support.targets import TargetProcess
from tests.support.tunnel import BOX


@dataclass(kw_only=True)
class Site(KubectlUser):
    """What `site()` made."""

    cluster: Cluster
    box: Box
    link: RelayProcess
    """Between box and server; the box is the one that dials through it."""
    namespace: BoxNamespace | None
    """The box's own network; None where none can be made, and the box is a plain process."""
    ports: dict[str, int]
    """The targets that listen on the box's loopback."""
    log: Path
    """The file that the box offers to `kubectl logs`; its container is `app.log`."""
    folder: Path
    """Scratch; the box sees the same one."""
    kubeconfig: Path


@contextlib.contextmanager
def site(behaviours: Sequence[str] = ("echo", "source", "count", "web")) -> Iterator[Site]:
    """A site that is up; everything is gone at the end."""
    with contextlib.ExitStack() as stack:
        namespace = None if missing_for_namespaces() else stack.enter_context(box_namespace())
        prefix = namespace.command([]) if namespace else []
        made = stack.enter_context(cluster(hosts=[namespace.host_address] if namespace else []))
        targets = stack.enter_context(TargetProcess(behaviours, prefix=prefix))
        made.start()
        outside = namespace.host_address if namespace else "127.0.0.1"
        link = stack.enter_context(RelayProcess(("127.0.0.1", made.tunnel_port), listen=(outside, 0)))
        folder = made.folder / "scratch"
        folder.mkdir()
        log = folder / "app.log"
        log.write_text("".join(f"line {number}\n" for number in range(1, 101)))
        box = made.join(
            BOX,
            address=link.address,
            allow=[f"127.0.0.1:{port}" for port in targets.ports.values()],
            host={"exec": True, "user": pwd.getpwuid(os.geteuid()).pw_name, "files": [str(log)]},
            prefix=prefix,
        )
        made.start_box(BOX)
        yield Site(
            cluster=made, box=box, link=link, namespace=namespace, ports=targets.ports, log=log, folder=folder,
            kubeconfig=made.kubeconfig(),
        )  # fmt: skip
