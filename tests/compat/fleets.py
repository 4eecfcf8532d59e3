"""Fleets with a box that is there, with its real built-in kubelet, one that is away, and more.

`compat_fleet` is made in a moment for tests of what an answer holds; `real_fleet` is the daemons themselves.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloud_server.opens.policy import DoorPolicy
from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings
from protos import tunnel_pb2
from tests.support.cluster import Cluster, cluster
from tests.support.fleet import FakeRegistry, Fleet, Kubelet, box, box_node, running_fleet
from tests.support.kubectl_user import KubectlUser
from tests.support.principals import ANN
from tests.support.records import Records
from tests.support.waits import eventually
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.wire.names import KUBELET

LOG_LINES = 20


@asynccontextmanager
async def compat_fleet(folder: Path, policy: DoorPolicy | None = None, **more: Kubelet) -> AsyncIterator[Fleet]:
    """`box-7` is connected, `box-8` is away, `box-9` offers nothing; `more` are boxes with kubelets of the test's own.

    `policy`: None lets everybody do all.

    An underscore in a name of `more` stands for a hyphen.
    """
    log = folder / "app.log"
    log.write_text("".join(f"line {number}\n" for number in range(LOG_LINES)))
    me = pwd.getpwuid(os.getuid()).pw_name
    kubelet = HostKubelet("box-7", HostSettings(exec=True, user=me, files=[log]), Records())
    await kubelet.find_accounts()

    async def serve(duplex: Duplex) -> None:
        await kubelet.serve(duplex, ANN)

    others = {name.replace("_", "-"): serving for name, serving in more.items()}
    registry = FakeRegistry(
        box("box-7", node=box_node(site="north")),
        box("box-8", connected=False, node=box_node(site="south")),
        box("box-9", node=_without_kubelet()),
        *(box(name, node=box_node()) for name in others),
    )
    async with running_fleet(folder, registry, {"box-7": serve, **others}, policy) as running:
        asked = running.opener.opened
        await eventually(lambda: ("box-7", KUBELET, "fleet") in asked, what="the kubelet was asked for its pods")
        link = running.opener.pairs["box-7"].server
        await eventually(lambda: not link.statistics().streams, what="the kubelet has answered")
        yield running
        await kubelet.aclose()


@dataclass(kw_only=True)
class RealFleet(KubectlUser):
    """What `real_fleet()` made."""

    cluster: Cluster
    kubeconfig: Path
    folder: Path
    log: Path
    """The file that `box-7` offers as container `app.log`."""


@contextmanager
def real_fleet() -> Iterator[RealFleet]:
    """A server with `box-7`, which offers its shell, a unit, a file and a missing file, and `box-8`, which is away."""
    with cluster() as made:
        made.start()
        folder = made.folder / "scratch"
        folder.mkdir()
        log = folder / "app.log"
        log.write_text("".join(f"line {number}\n" for number in range(LOG_LINES)))
        files = [str(log), str(folder / "missing.log")]
        me = pwd.getpwuid(os.geteuid()).pw_name
        made.join("box-7", host={"exec": True, "user": me, "units": ["nginx.service"], "files": files})
        made.join("box-8")
        made.start_box("box-8").agent.stop()
        made.start_box("box-7")
        yield RealFleet(cluster=made, kubeconfig=made.kubeconfig(), folder=folder, log=log)


# Internal


def _without_kubelet() -> tunnel_pb2.Node:
    node = box_node()
    node.ClearField("services")
    return node
