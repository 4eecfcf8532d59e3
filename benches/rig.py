"""Server, box, services and a relay between server and box: up, and gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil

from benches.services import Services, services
from tests.support.cluster import Box, Cluster, cluster
from tests.support.relay_process import RelayProcess

BOX = "box-7"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used."""

    cpu_s: float
    rss_mb: float


@dataclass(kw_only=True)
class Rig:
    """What is measured."""

    direct: Services
    """The services themselves."""
    tunnelled: Services
    """The same through static forwards."""
    cluster: Cluster
    box: Box
    link: RelayProcess | None
    """Between box and server; None when the box dials the server itself."""

    def usage(self) -> dict[str, Usage]:
        """Of both daemons."""
        return {"server": _usage(self.cluster.server.pid), "agent": _usage(self.box.agent.pid)}


@contextmanager
def rig(*, relay: bool = False, commands: bool = False, through: Sequence[str] = ()) -> Iterator[Rig]:
    """Everything up.

    Args:
        relay: the box reaches the server through one.
        commands: the box offers its shell too, for which an agent holds 3 MB more.
        through: words before the daemons' commands.
    """
    with ExitStack() as stack:
        direct = stack.enter_context(services())
        made = stack.enter_context(cluster())
        ports = (direct.source, direct.sink, direct.echo)
        tunnelled = Services(*(made.forward(BOX, f"127.0.0.1:{port}") for port in ports))
        made.server.go_through(*through)
        made.start()
        link = stack.enter_context(RelayProcess(("127.0.0.1", made.tunnel_port))) if relay else None
        box = made.join(
            BOX,
            address=link.address if link is not None else "",
            allow=[f"127.0.0.1:{port}" for port in ports],
            host={"exec": commands, "user": "root"},
        )
        box.agent.go_through(*through)
        made.start_box(BOX)
        yield Rig(direct=direct, tunnelled=tunnelled, cluster=made, box=box, link=link)


def _usage(pid: int) -> Usage:
    process = psutil.Process(pid)
    times = process.cpu_times()
    return Usage(times.user + times.system, process.memory_info().rss / 1e6)
