"""What was not kept as a whole has no answer without the cloud, and what a kubelet then does: it waits.

Each of these would be believed if it were answered with nothing: a kubelet ends pods that are not listed, rejects pods
for a node that it has to make up, mounts optional Secrets that it is told do not exist as empty folders, starts
containers without the Services in their environment, and ends itself without its CSINode; a kube-proxy removes its
rules. So parts are taken out of what the agent keeps, and the node's components start without the cloud.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_agent.autonomy.asks import SHARED, Scope, scope_of
from edge_agent.autonomy.kept.disk import Disk
from edge_agent.autonomy.kept.sharing import SHAREABLE
from tests.e2e.cluster.autonomous import SITE, Edge
from tests.support.agent_status import status_of
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
KUBE_PROXY = "system:serviceaccount:kube-system:kube-proxy"
CSINODE = f"/apis/storage.k8s.io/v1/csinodes/{SITE}?resourceVersion=0"
SEEN_S = 3.0
"""How long the node is watched after its components have asked: a kubelet ends pods within two seconds of a list."""


class Lost(NamedTuple):
    """A part that is not kept any more."""

    who: str
    """Who misses it."""
    resource: str
    selector: str = ""
    """The beginning of its field selector."""

    def is_of(self, scope: Scope) -> bool:
        kept_by = SHARED if (scope.group, scope.resource) in SHAREABLE else self.who
        named = (scope.who, scope.resource) == (kept_by, self.resource)
        return named and scope.field_selector.startswith(self.selector)


OF_PODS = [
    Lost("node", "secrets", "metadata.name=known"), Lost("node", "configmaps", "metadata.name=known"),
    Lost("node", "services"), Lost("node", "csinodes"), Lost(KUBE_PROXY, "endpointslices"),
]  # fmt: skip
PODS = [Lost("node", "pods"), Lost(KUBE_PROXY, "services")]
NODE = [Lost("node", "nodes")]


def test_what_is_not_kept_has_no_answer_and_ends_nothing(edge: Edge, tmp_path: Path) -> None:
    before = {kind.name: edge.pod(kind.name) for kind in edge.kinds}
    ended = before["env"]["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    containers = edge.pod_ids() - {ended}
    with edge.cut():
        edge.box.agent.kill()
        _copy(edge.box.state, tmp_path)
        with _without(edge, OF_PODS, tmp_path, containers):
            seen = len(edge.node.kubelet.log_text())
            edge.node.ctr("tasks", "kill", "--signal", "9", ended)
            edge.node.kubelet.wait_for_log("services have not yet been read", 20, after=seen)
            assert edge.ask(CSINODE, "-o", "/dev/null", "-w", "%{http_code}") == "503"
        assert _mounted(edge, before["secret"], "secret") == "plugh"
        assert _mounted(edge, before["config"], "configmap") == "abracadabra"
        phases = {edge.pod(name)["status"]["phase"] for name in before}
        with _without(edge, PODS, tmp_path, containers):
            pass
        with _without(edge, NODE, tmp_path, containers):
            pass
    assert phases == {"Running"}
    for kind in edge.kinds:
        wait_until(partial(edge.serves, kind), f"{kind.name} has all it needs", 60)
        wanted = _in_short(before[kind.name], more_starts=kind.name == "env")
        wait_until(partial(_is_so, edge, kind.name, wanted), f"it is so: {wanted}", 60)
    assert edge.pod_ids() > containers
    assert edge.is_ready()
    _, status = status_of(edge.box)
    assert not status["autonomy"]["missing"]
    assert all(scope["complete"] and scope["kept"] for scope in status["autonomy"]["scopes"])


@contextlib.contextmanager
def _without(edge: Edge, lost: list[Lost], copy: Path, containers: set[str]) -> Iterator[None]:
    """The node's components start anew, with all that was kept but for these. The block begins when they have missed
    it; after it they and the containers run still.
    """
    for daemon in (edge.node.kubelet, edge.node.proxy, edge.box.agent):
        daemon.kill()
    _copy(copy, edge.box.state)
    _take_out(edge.box.state / "autonomy.db", lost)
    edge.box.agent.start().wait_ready()
    edge.node.kubelet.start()
    edge.node.proxy.start()
    wait_until(lambda: _missing(edge) >= {(one.who, one.resource) for one in lost}, f"the status names {lost}", 30)
    yield
    time.sleep(SEEN_S)
    assert edge.pod_ids() == containers, "nothing was ended, and nothing started"
    assert edge.service("each") == "each\n", "the rules of kube-proxy stand"
    assert edge.node.kubelet.running
    assert edge.node.proxy.running


def _copy(source: Path, target: Path) -> None:
    for path in target.glob("autonomy.db*"):
        path.unlink()
    for path in source.glob("autonomy.db*"):
        shutil.copy(path, target)


def _take_out(database: Path, lost: list[Lost]) -> None:
    disk = Disk(database)
    names = [name for name in disk.scopes() if not name.startswith("!")]
    for one in lost:
        gone = [name for name in names if one.is_of(scope_of(name))]
        assert gone, f"{one} was not kept at all"
        for name in gone:
            disk.drop(name)
    disk.close()


def _missing(edge: Edge) -> set[tuple[str, str]]:
    """Whose requests of which resources had no answer, by the status of the agent."""
    _, status = status_of(edge.box)
    return {(one["who"], one["name"].split(",")[0].split()[0].split(".")[0]) for one in status["autonomy"]["missing"]}


def _in_short(pod: dict[str, Any], *, more_starts: int = 0) -> tuple[str, str, int]:
    """Which pod it is, how it is, and how often its container was started again."""
    status = pod["status"]
    return pod["metadata"]["uid"], status["phase"], status["containerStatuses"][0]["restartCount"] + more_starts


def _is_so(edge: Edge, name: str, wanted: tuple[str, str, int]) -> bool:
    """Whether the cloud says that of a pod."""
    return _in_short(json.loads(edge.kube.kubectl("get", "pod", name, "-o", "json"))) == wanted


def _mounted(edge: Edge, pod: dict[str, Any], kind: str) -> str:
    """What is in a pod's volume, on the node's disk."""
    folder = f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~{kind}/given"
    return edge.node.namespaces.run("cat", f"{folder}/word")
