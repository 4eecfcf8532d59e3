"""Nodes join as themselves by what a real API server says of their tokens; its nodes need not run for that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.e2e.cluster import build
from tests.e2e.cluster.control_plane import ControlPlane, control_plane
from tests.e2e.cluster.deploy import account
from tests.e2e.cluster.pki import ClusterPki
from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.processes import command_result
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300, func_only=True)]

NAMESPACE, ACCOUNT = "longline-agents", "edge-agent"
NODES = ("node-1", "node-2")


class Kubelet(KubectlUser):
    """What somebody can ask the API who has the credential of a node."""

    def __init__(self, plane: ControlPlane, node: str) -> None:
        self.folder = plane.folder
        path = plane.folder / f"{node}.kubeconfig"
        self.kubeconfig = plane.pki.kubeconfig(path, plane.api.server, f"system:node:{node}", group="system:nodes")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with tempfile.TemporaryDirectory(prefix="longline-") as place:
        folder = Path(place)
        pki = ClusterPki(folder / "pki")
        with control_plane(folder / "cloud", build.programs(), pki, address="127.0.0.1", nodes=NODES) as made:
            made.start()
            made.wait_ready()
            for one in objects():
                made.api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(one).encode())
            yield made


def objects() -> Iterator[dict[str, object]]:
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for name in (ACCOUNT, "other"):
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}
    for node in NODES:
        yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}
        for name in (ACCOUNT, "other"):
            token = {"serviceAccountToken": {"audience": "longline", "path": "token"}}
            spec = {
                "nodeName": node, "serviceAccountName": name, "containers": [{"name": "a", "image": "a"}],
                # A kubelet is given no token for an audience that no volume of a pod asks for.
                "volumes": [{"name": "node", "projected": {"sources": [token]}}],
            }  # fmt: skip
            about = {"name": f"{name}-{node}", "namespace": NAMESPACE}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


@pytest.fixture(scope="module")
def cloud(plane: ControlPlane) -> Iterator[Cluster]:
    with cluster() as made:
        kubeconfig = account(plane.api, plane.api.server, made.config.parent)
        made.configure({"kubernetes": {"kubeconfig": str(kubeconfig), "join": [f"{NAMESPACE}/{ACCOUNT}"]}})
        made.start()
        (made.folder / "join.token").write_text(made.typed("token", "create", "--agents", "*", "--kubernetes"))
        yield made


def bound(plane: ControlPlane, node: str, name: str = ACCOUNT) -> list[str]:
    """The words that ask for a token of an account's pod on a node."""
    pod = f"{name}-{node}"
    uid = plane.api.kubectl("get", "pod", pod, "-n", NAMESPACE, "-o", "jsonpath={.metadata.uid}")
    words = ["create", "token", name, "-n", NAMESPACE, "--bound-object-kind", "Pod"]
    return [*words, "--bound-object-name", pod, "--bound-object-uid", uid]


def token(plane: ControlPlane, node: str, name: str = ACCOUNT, audience: str = "longline") -> str:
    """What an account's pod on a node would have."""
    return plane.api.kubectl(*bound(plane, node, name), "--audience", audience)


def join(cloud: Cluster, shown: str, name: str) -> str:
    """What `edge-agent join` says in a pod that has a token."""
    state, file = cloud.folder / name, cloud.folder / f"{name}.node-token"
    file.write_text(shown)
    where = ["--server", cloud.tunnel_address, "--token-file", str(cloud.folder / "join.token")]
    done = command_result("edge-agent", "join", *where, "--kubernetes-token-file", str(file), "--state", str(state))
    return done.stdout if done.returncode == 0 else done.stderr


def test_each_node_joins_as_itself_with_the_same_join_token(plane: ControlPlane, cloud: Cluster) -> None:
    # The API of the cluster is read in the background, from the server's start on.
    wait_until(lambda: "joined as node-1" in join(cloud, token(plane, "node-1"), "first"), "node-1 has joined", 30)
    own = Kubelet(plane, "node-2").kubectl(*bound(plane, "node-2"), "--audience", "longline")
    assert "joined as node-2" in join(cloud, own, "second")
    assert "joined as node-2" in join(cloud, token(plane, "node-2"), "reinstalled")
    listed = cloud.typed("agent", "list")
    assert ("node-1" in listed, "node-2" in listed) == (True, True)


def test_a_hostile_node_gets_no_token_of_another_nodes_pod(plane: ControlPlane) -> None:
    done = Kubelet(plane, "node-2").run_kubectl(*bound(plane, "node-1"), "--audience", "longline")
    assert (done.returncode, b"bound to a pod scheduled on a different node" in done.stderr) == (1, True), done.stderr


SHOWN: Mapping[str, Callable[[ControlPlane], str]] = {
    "other account": lambda plane: token(plane, "node-1", "other"),
    "other audience": lambda plane: token(plane, "node-1", audience="https://kubernetes.default.svc"),
    "bound to no pod": lambda plane: plane.api.kubectl(
        "create", "token", ACCOUNT, "-n", NAMESPACE, "--audience", "longline"
    ),
    "none": lambda _plane: "",
    "damaged": lambda plane: token(plane, "node-1")[:-20],
}


@pytest.mark.parametrize("case", SHOWN)
def test_other_tokens_are_refused(plane: ControlPlane, cloud: Cluster, case: str) -> None:
    shown = SHOWN[case](plane)
    said = join(cloud, shown, case.replace(" ", "-"))
    assert "[LL2057]" in said
    assert not shown or shown.strip() not in said + cloud.server.log_text()
