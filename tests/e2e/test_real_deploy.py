"""`deploy/` on a real Kubernetes: its API server accepts all of it, and what it describes runs."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import node_config, own_image
from tests.e2e.cluster.deploy import BESIDE, NAMESPACE, OVERLAYS, filled
from tests.e2e.cluster.node import Node
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused, connect_through
from tests.support.kubectl_user import KubectlUser
from tests.support.port_forward import forwarding
from tests.support.tunnel import wait_until
from tests.support.waits import Deadline

pytestmark = pytest.mark.timeout(180, func_only=True)

EXAMPLE = "cloud.example.com:7443"
AGENTS = "longline-agents"
USER = 10001
RUNS_S = 60.0
EMPTY = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty", "namespace": "default"},
    "spec": {"ports": [{"port": 80}]},
}  # fmt: skip
"""A service that leads nowhere."""

Manifest = dict[str, Any]


def manifests(text: str) -> list[Manifest]:
    return list(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def image(kube: Tunnelled) -> None:
    """The image, on both nodes."""
    archive = kube.folder / "longline.tar"
    own_image.write_archive(archive)
    for node in kube.kubernetes.nodes.values():
        (node.home / archive.name).hardlink_to(archive)
        node.ctr("images", "import", "--snapshotter", "native", f"{node_config.HOME}/{archive.name}")
        (node.home / archive.name).unlink()
    archive.unlink()


@contextlib.contextmanager
def applied(kube: KubectlUser, text: str) -> Iterator[None]:
    """Objects that are there meanwhile."""
    kube.kubectl("apply", "-f", "-", stdin=text.encode())
    try:
        yield
    finally:
        kube.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text.encode(), timeout_s=90)


def wait_for(kube: KubectlUser, pod: str, namespace: str) -> None:
    """Wait until a pod is ready; says what happened to it when it is not."""
    deadline = Deadline(RUNS_S)
    ask = ("get", pod, "-n", namespace, "-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')
    while kube.run_kubectl(*ask).stdout != b"True":
        if deadline.passed():
            story = kube.run_kubectl("describe", pod, "-n", namespace).stdout.decode()
            logs = kube.run_kubectl("logs", pod, "-n", namespace, "--all-containers", "--prefix").stdout.decode()
            pytest.fail(f"{pod} is not ready:\n{story}\n{logs}")
        time.sleep(0.2)


class TestTheApiServerAcceptsIt:
    def checked(self, kube: Tunnelled, text: str) -> list[str]:
        argv = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
        done = kube.run_kubectl(*argv, stdin=text.encode())
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        return done.stdout.decode().splitlines()

    @pytest.mark.parametrize("overlay", ["beside-apiserver", "cloud-server", "edge-agent"])
    def test_overlay(self, kube: Tunnelled, overlay: str) -> None:
        text = kube.kubectl("kustomize", str(OVERLAYS / overlay))
        (namespace,) = (each for each in manifests(text) if each["kind"] == "Namespace")
        known = kube.run_kubectl("get", "namespace", namespace["metadata"]["name"]).returncode == 0
        # What is in a namespace can be tried only when there is one.
        with contextlib.nullcontext() if known else applied(kube, yaml.safe_dump(namespace)):
            assert len(self.checked(kube, text)) == len(manifests(text))

    def test_static_pod(self, kube: Tunnelled) -> None:
        assert self.checked(kube, (BESIDE / "static-pod.yaml").read_text()) == [
            "pod/cloud-server created (server dry run)"
        ]

    def test_its_namespace_admits_no_more_than_the_restricted_pod(self, kube: Tunnelled) -> None:
        text = kube.kubectl("kustomize", str(OVERLAYS / "cloud-server"))
        (deployment,) = (each for each in manifests(text) if each["kind"] == "Deployment")
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "namespace": NAMESPACE},
            "spec": deployment["spec"]["template"]["spec"],
        }  # fmt: skip
        assert self.checked(kube, yaml.safe_dump(pod)) == ["pod/try created (server dry run)"]
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        refused = kube.run_kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod).encode())
        assert b'violates PodSecurity "restricted' in refused.stderr


class TestItsAccount:
    def may(self, kube: Tunnelled, verb: str, what: str) -> bool:
        account = f"system:serviceaccount:{NAMESPACE}:cloud-server"
        resource, _, part = what.partition("/")
        subresource = [f"--subresource={part}"] if part else []
        asked = kube.run_kubectl("auth", "can-i", verb, resource, *subresource, "--all-namespaces", "--as", account)
        return asked.stdout.startswith(b"yes")

    @pytest.mark.parametrize("what", ["nodes", "services", "pods", "endpointslices.discovery.k8s.io"])
    def test_it_may_look(self, kube: Tunnelled, what: str) -> None:
        assert self.may(kube, "list", what)
        assert self.may(kube, "watch", what)
        assert not self.may(kube, "update", what)

    @pytest.mark.parametrize("what", ["secrets", "configmaps", "pods/exec", "pods/log", "nodes/proxy"])
    def test_it_may_not_see_the_rest(self, kube: Tunnelled, what: str) -> None:
        assert not any(self.may(kube, verb, what) for verb in ("get", "list", "watch", "create"))


@pytest.mark.usefixtures("image")
class TestDaemonSet:
    def test_a_node_joins_as_itself_and_is_reached(self, kube: Tunnelled) -> None:
        shared = kube.cluster
        namespace = yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENTS}})
        kube.kubectl("label", "node", "site-a", "longline/edge=true")
        # A server of its own: with the shared one the node's name has joined already.
        with cluster(host=shared.host) as cloud, applied(kube, namespace):
            try:
                kubeconfig = str(shared.config.with_name("kubernetes.kubeconfig"))
                cloud.configure({"kubernetes": {"kubeconfig": kubeconfig, "join": [f"{AGENTS}/edge-agent"]}})
                cloud.start()
                token = cloud.folder / "join.token"
                token.write_text(cloud.typed("token", "create", "--agents", "*", "--kubernetes"))
                kube.kubectl("create", "secret", "generic", "join-token", "-n", AGENTS, f"--from-file=token={token}")
                text = kube.kubectl("kustomize", str(OVERLAYS / "edge-agent")).replace(EXAMPLE, cloud.tunnel_address)
                kube.kubectl("apply", "-f", "-", stdin=text.encode())
                first = self.pod(kube)
                wait_for(kube, first, AGENTS)
                self.reached(cloud, "site-a")
                # The key stays on the node: it does not join again.
                kube.kubectl("delete", first, "-n", AGENTS, timeout_s=60)
                second = self.pod(kube)
                assert second != first
                wait_for(kube, second, AGENTS)
                self.reached(cloud, "site-a")
                said = kube.kubectl("logs", second, "-n", AGENTS, "-c", "join")
                assert said == ""
            finally:
                kube.kubectl("label", "node", "site-a", "longline/edge-")

    @staticmethod
    def pod(kube: Tunnelled) -> str:
        deadline = Deadline(RUNS_S)
        while not (names := kube.kubectl("get", "pods", "-n", AGENTS, "-o", "name").split()):
            assert not deadline.passed(), "no pod"
            time.sleep(0.2)
        (name,) = names
        return name

    @staticmethod
    def reached(cloud: Cluster, agent: str) -> None:
        deadline = Deadline(RUNS_S)
        while True:
            try:
                with cloud.dial(f"{agent}:10250") as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert b"HTTP request to an HTTPS server" in connection.recv(4096)
                return
            except (ConnectionError, ConnectRefused):  # a pod is ready before its agent is connected
                if deadline.passed():
                    raise
                time.sleep(0.2)


@pytest.mark.usefixtures("image")
class TestDeployment:
    def test_it_serves(self, kube: Tunnelled) -> None:
        node = kube.kubernetes.nodes["site-a"]
        state = node.home / "cloud-state"
        state.mkdir()
        shutil.chown(state, USER, USER)
        with applied(kube, self.manifests(kube, f"{node_config.HOME}/{state.name}")):
            kube.kubectl("rollout", "status", "deployment/cloud-server", "-n", NAMESPACE, "--timeout=60s", timeout_s=70)
            name = "deployment/cloud-server"
            program = "/opt/longline/bin/cloud-server"
            config = ("--config", "/var/lib/cloud-server/cloud-server.toml")
            run = functools.partial(kube.kubectl, "exec", "-n", NAMESPACE, "-c", "cloud-server", name, "--", program)
            assert run("token", "create", *config, "--agent", "box-1").strip()
            kubeconfig = yaml.safe_load(run("user", "kubeconfig", "admin", "--token", *config))
            with forwarding(kube, name, 7445, NAMESPACE) as port:
                cluster = kubeconfig["clusters"][0]["cluster"]
                assert cluster["server"] == "https://cloud.example.com:7445"
                cluster |= {"server": f"https://127.0.0.1:{port}", "tls-server-name": "cloud.example.com"}
                user = FleetUser(kube.folder / "fleet.kubeconfig", kubeconfig)
                assert user.run_kubectl("get", "nodes").stderr == b"No resources found\n"
            logs = kube.kubectl("logs", "-n", NAMESPACE, "-c", "cloud-server", name)
            assert '"event":"ready"' in logs
            assert '"level":"warning"' not in logs

    @staticmethod
    def manifests(kube: Tunnelled, state: str) -> str:
        everything = manifests(kube.kubectl("kustomize", str(OVERLAYS / "cloud-server")))
        # The account stays: the cluster's own server has it.
        ours = [each for each in everything if "Role" not in each["kind"] and each["kind"] != "Namespace"]
        ours = [each for each in ours if each["kind"] != "ServiceAccount"]
        (deployment,) = (each for each in ours if each["kind"] == "Deployment")
        # There is no DNS in this cluster, and only one node has the volume.
        spec = deployment["spec"]["template"]["spec"]
        spec["hostAliases"] = [{"ip": "10.96.0.1", "hostnames": ["kubernetes.default.svc"]}]
        spec["nodeName"] = "site-a"
        volume = {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "cloud-server"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": state},
                "claimRef": {"namespace": NAMESPACE, "name": "cloud-server"},
            },
        }  # fmt: skip
        return yaml.safe_dump_all([volume, *ours])


class FleetUser(KubectlUser):
    """Somebody with a kubeconfig of the pod's server."""

    def __init__(self, path: Path, kubeconfig: Manifest) -> None:
        path.write_text(yaml.safe_dump(kubeconfig))
        self.folder, self.kubeconfig = path.parent, path


@pytest.mark.usefixtures("image")
class TestStaticPod:
    def test_it_serves(self, kube: Tunnelled) -> None:
        node = kube.kubernetes.nodes["site-b"]
        state = node.folder / "var/lib/cloud-server"
        self.prepare(kube, state)
        manifest = node.home / "manifests" / "cloud-server.yaml"
        manifest.write_text((BESIDE / "static-pod.yaml").read_text())
        pod = "pod/cloud-server-site-b"
        try:
            wait_for(kube, pod, "kube-system")
            # What it answers here, it can only have from the cluster.
            socket = node.folder / "run/cloud-server/connect.sock"
            with applied(kube, yaml.safe_dump(EMPTY)):
                wait_until(lambda: "has no ready endpoint" in self.refusal(socket), "it knows the service")
            assert (state / "ca.key").stat().st_uid == USER
        finally:
            manifest.unlink()
            self.wait_gone(kube, node, pod)

    @staticmethod
    def refusal(socket: Path) -> str:
        with pytest.raises(ConnectRefused) as refused:
            connect_through(socket, "empty.default.svc:80")
        return str(refused.value)

    @staticmethod
    def prepare(kube: Tunnelled, state: Path) -> None:
        """What docs/howto/kubeadm.md has the operator put there."""
        state.mkdir()
        shutil.copy(BESIDE / "cloud-server.toml", state)
        for name in ("kubernetes.token", "kubernetes.ca.crt"):
            shutil.copy(kube.cluster.config.parent / name, state)
            (state / name).chmod(0o644)
        server = {"https://192.0.2.10:6443": kube.kubernetes.control.api.server}
        (state / "kubernetes.kubeconfig").write_text(filled(BESIDE / "kubernetes.kubeconfig", server))

    @staticmethod
    def wait_gone(kube: Tunnelled, node: Node, pod: str) -> None:
        deadline = Deadline(RUNS_S)
        while kube.run_kubectl("get", pod, "-n", "kube-system").returncode == 0:
            assert not deadline.passed(), f"{pod} stays: {node.logs()}"
            time.sleep(0.2)
