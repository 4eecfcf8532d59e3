"""Ten pods of a node, each of which needs something else of the cluster to start, and serves what it got."""

from __future__ import annotations

from typing import NamedTuple

from tests.e2e.cluster import workloads
from tests.e2e.cluster.node import Node
from tests.e2e.cluster.workloads import Manifest
from tests.support.kubectl_user import KubectlUser
from tests.support.tunnel import wait_until

PORT, HOST_PORT = 8080, 8081
SERVING = "serving"
"""What each of them logs just before it serves."""
LABEL = {"longline.test/place": "edge"}
CLAIMED = "/var/lib/claimed"
"""The folder of the node that is the volume."""


class Kind(NamedTuple):
    """A pod that was made."""

    name: str
    """As the API server knows it."""
    port: int
    words: str
    """What its page has in it."""


def make_all(kube: KubectlUser, node: Node) -> list[Kind]:
    """Make them on a node, and a Service `each`, and wait until all is ready."""
    kube.kubectl("label", "node", node.name, *(f"{key}={value}" for key, value in LABEL.items()))
    kube.kubectl("create", "secret", "generic", "known", "--from-literal", "word=plugh")
    kube.kubectl("create", "configmap", "known", "--from-literal", "word=abracadabra")
    _make_claim(kube)
    objects = [_service("each"), *_bare(node.name), _daemon_set("each"), _daemon_set("each-host", is_host=True)]
    node.add_static_pod(_serving("static", "echo from a file"))
    kube.kubectl("apply", "--server-side", "-f", "-", stdin=workloads.listed(*objects))
    wait_until(lambda: all(_of(kube, name) for name in ("each", "each-host")), "each DaemonSet has its pod", 30)
    made = [
        Kind("env", PORT, "EACH_SERVICE_PORT=80\n"),
        Kind("config", PORT, "word=abracadabra\n"),
        Kind("secret", PORT, "plugh"),
        Kind("no-secret", PORT, "files: 0\n"),
        Kind("token", PORT, "eyJ"),
        Kind("selected", PORT, "place: edge\n"),
        Kind("claim", PORT, "started\n"),
        Kind(f"static-{node.name}", PORT, "from a file\n"),
        Kind(_of(kube, "each"), PORT, "each\n"),
        Kind(_of(kube, "each-host"), HOST_PORT, "each-host\n"),
    ]
    wait_until(lambda: kube.run_kubectl("get", "pod", made[7].name).returncode == 0, "the static pod is mirrored", 30)
    kube.kubectl("wait", *(f"pod/{kind.name}" for kind in made), "--for=condition=Ready", "--timeout=60s", timeout_s=65)
    return made


# Internal


def _bare(node: str) -> list[Manifest]:
    secret, config = {"secretName": "known", "optional": True}, {"name": "known", "optional": True}
    token = {"serviceAccountToken": {"path": "word", "audience": "vault", "expirationSeconds": 3600}}
    made = [
        _serving("env", "env"),
        _serving("config", "env && cat /given/word", volume={"configMap": config},
                 env_from=[{"configMapRef": config}, {"secretRef": {"name": "unknown", "optional": True}}]),
        _serving("secret", "cat /given/word", volume={"secret": secret}),
        _serving("no-secret", "echo files: $(ls /given | wc -l)",
                 volume={"secret": {**secret, "secretName": "unknown"}}),
        _serving("token", "cat /given/word", volume={"projected": {"sources": [token]}}),
        _serving("selected", "echo place: edge"),
        _serving("claim", "echo started >>/given/starts && cat /given/starts",
                 volume={"persistentVolumeClaim": {"claimName": "claimed"}}),
    ]  # fmt: skip
    for pod in made:
        pod["spec"]["nodeName"] = node
        if pod["metadata"]["name"] == "selected":
            pod["spec"]["nodeSelector"] = LABEL
    return made


def _serving(
    name: str, command: str, *, port: int = PORT, volume: Manifest | None = None,
    env_from: list[Manifest] | None = None,
) -> Manifest:  # fmt: skip
    """A pod whose page is what a command prints."""
    script = f"mkdir /www && ({command}) >/www/index.html && echo {SERVING} && exec httpd -f -p {port} -h /www"
    mounts = [{"name": "given", "mountPath": "/given"}] if volume else []
    pod = workloads.pod(
        name, workloads.container("web", "sh", "-c", script, volumeMounts=mounts, envFrom=env_from or [])
    )
    if volume:
        pod["spec"]["volumes"] = [{"name": "given", **volume}]
    return pod


def _daemon_set(name: str, *, is_host: bool = False) -> Manifest:
    pod = _serving(name, f"echo {name}", port=HOST_PORT if is_host else PORT)
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {**pod["spec"], "hostNetwork": is_host}},
        },
    }  # fmt: skip


def _service(name: str) -> Manifest:
    ports = [{"port": 80, "targetPort": PORT}]
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": {"app": name}, "ports": ports}}  # fmt: skip


def _make_claim(kube: KubectlUser) -> None:
    """Make a volume of the node and then a claim to it, and wait until they are bound. A controller that sees the claim
    first looks again after 15 s, and a kubelet that sees it before that after ten.
    """
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    claim = {"namespace": "default", "name": "claimed"}
    volume = {"hostPath": {"path": CLAIMED, "type": "DirectoryOrCreate"}, "capacity": {"storage": "1Mi"}}
    wanted = {"volumeName": "claimed", "resources": {"requests": {"storage": "1Mi"}}}
    for kind, metadata, spec in (
        ("PersistentVolume", {"name": "claimed"}, {**common, **volume, "claimRef": claim}),
        ("PersistentVolumeClaim", claim, {**common, **wanted}),
    ):
        made: Manifest = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}
        kube.kubectl("apply", "--server-side", "-f", "-", stdin=workloads.listed(made))
    kube.kubectl("wait", "pvc/claimed", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s", timeout_s=35)


def _of(kube: KubectlUser, name: str) -> str:
    """The pod of a DaemonSet; empty as long as there is none."""
    return kube.kubectl("get", "pods", "-l", f"app={name}", "-o", "jsonpath={.items[*].metadata.name}")
