"""`python -m benches.boot [--pairs N]`: a node that lost its power boots without the cloud, beside plain Kubernetes.

The node has ten pods, each of another kind (`tests/e2e/cluster/kinds_of_pods.py`). In turns, everything on it is killed
and it starts again

- *away*: the way to the cloud takes everything and brings nothing, and the kubelet asks the agent;
- *plain*: the cloud is there, the kubelet asks the API server itself, and there is no agent.

Each time is from the start of the kubelet, which is started when containerd and the agent are ready, as systemd does.
Times are those in the logs: nothing is asked meanwhile.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from benches.machine import machine
from tests.e2e.cluster import kinds_of_pods
from tests.e2e.cluster.autonomous import Edge, autonomous_node
from tests.e2e.cluster.kinds_of_pods import SERVING, Kind
from tests.e2e.cluster.node import Node
from tests.support.agent_status import status_of
from tests.support.tunnel import wait_until

BOOT_S, BACK_S = 180.0, 120.0
STAGES = ("pods listed", "first sandbox", "last sandbox", "first pod serves", "last pod serves")
Times = dict[str, float]


def main() -> None:
    """Measure in turns, and print each boot and the medians."""
    words = argparse.ArgumentParser(prog="python -m benches.boot", description="Boots without the cloud, and with it.")
    words.add_argument("--pairs", type=int, default=3)
    words.add_argument("--keep", type=Path, metavar="FOLDER", help="where the kubelet's logs are left")
    options = words.parse_args()
    boots: dict[str, list[Times]] = {"away": [], "plain": []}
    print(machine())
    with autonomous_node() as edge:
        kinds = kinds_of_pods.make_all(edge.kube, edge.node)
        _wait_for_calm(edge, kinds)
        for number in range(options.pairs):
            for subject in ("away", "plain") if number % 2 == 0 else ("plain", "away"):
                boots[subject].append(_boot(edge, kinds, subject, options.keep, number))
    _show(boots)


def _boot(edge: Edge, kinds: list[Kind], subject: str, keep: Path | None, number: int) -> Times:
    if subject == "away":
        with edge.cut():
            edge.node.power_cut()
            edge.box.agent.kill()
            begun = time.monotonic()
            edge.box.agent.start().wait_ready(30)
            agent_s = time.monotonic() - begun
            times = {"agent ready": agent_s, **_start(edge.node, kinds)}
    else:
        edge.autonomy("disable")
        edge.node.power_cut()
        edge.box.agent.kill()
        times = _start(edge.node, kinds)
    print(f"{subject:6} {_line(times)}, load {os.getloadavg()[0]:.1f}", flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{number}-{subject}-kubelet.log").write_text(edge.node.kubelet.log_text())
        (keep / f"{number}-{subject}-containerd.log").write_text(edge.node.containerd.log_text())
    if subject == "plain":
        edge.box.agent.start().wait_ready(30)
        edge.autonomy("enable")
        edge.node.restart()
    _wait_for_calm(edge, kinds)
    return times


def _start(node: Node, kinds: list[Kind]) -> Times:
    """Starts a node; returns the seconds from the start of its kubelet to each stage."""
    for daemon in node.daemons:
        daemon.log.write_bytes(b"")
    begun_s = 0.0

    def begin() -> None:
        nonlocal begun_s
        begun_s = datetime.now(UTC).timestamp()  # as logs have it

    node.boot(begin)
    wait_until(lambda: len(_serving(node, begun_s)) == len(kinds), "all pods serve", BOOT_S)
    time.sleep(1)  # the logs of the daemons
    served = sorted(_serving(node, begun_s).values())
    sandboxes = [
        datetime.fromisoformat(at[:26]).replace(tzinfo=UTC).timestamp() - begun_s
        for at in re.findall(r'time="(\S+?)Z".*"RunPodSandbox for [^"]*returns sandbox', node.containerd.log_text())
    ]
    listed = re.search(r"^I\d{4} (\S+) .*Watching apiserver", node.kubelet.log_text(), re.MULTILINE)
    assert listed is not None
    moment = datetime.fromisoformat(f"{datetime.fromtimestamp(begun_s):%Y-%m-%d}T{listed[1]}")  # noqa: DTZ006 - as klog
    values = (moment.timestamp() - begun_s, min(sandboxes), max(sandboxes), served[0], served[-1])
    return dict(zip(STAGES, values, strict=True))


def _serving(node: Node, since_s: float) -> dict[str, float]:
    """Returns when each pod has said that it serves, by its container's log, since a moment."""
    found: dict[str, float] = {}
    for log in (node.folder / "var" / "log" / "pods").glob("*/*/*.log"):
        with suppress(FileNotFoundError):  # a kubelet removes those of older containers
            for line in log.read_text().splitlines():
                at, _, rest = line.partition(" ")
                at_s = datetime.fromisoformat(at[:26]).replace(tzinfo=UTC).timestamp() - since_s
                if rest.endswith(f" {SERVING}") and at_s > 0:
                    found[log.parts[-3]] = at_s
    return found


def _wait_for_calm(edge: Edge, kinds: list[Kind]) -> None:
    """Waits until the cloud knows that all is well, and is told all."""
    names = [f"pod/{kind.name}" for kind in kinds]
    wait_until(edge.is_ready, "the node is ready", BACK_S)
    edge.kube.kubectl("wait", *names, "--for=condition=Ready", f"--timeout={BACK_S:.0f}s", timeout_s=BACK_S)

    def is_calm() -> bool:
        _, status = status_of(edge.box)
        scopes = status["autonomy"]["scopes"]
        return not any(status["autonomy"]["waiting"].values()) and all(one["live"] and one["kept"] for one in scopes)

    wait_until(is_calm, "nothing waits", BACK_S)
    time.sleep(10)  # the kubelet reports again


def _line(times: Times) -> str:
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in times.items())


def _show(boots: dict[str, list[Times]]) -> None:
    for subject, times in boots.items():
        print(f"median {subject:6} {_line({name: statistics.median(one[name] for one in times) for name in times[0]})}")
    pairs = zip(boots["away"], boots["plain"], strict=True)
    more = [away[STAGES[-1]] - plain[STAGES[-1]] for away, plain in pairs]
    print(f"away takes longer by {', '.join(f'{one:.2f}' for one in more)} s: median {statistics.median(more):.2f}")


if __name__ == "__main__":
    main()
