"""CoreDNS on a node, as a pod in the node's network that asks the API server by the node's proxy (see `coredns/`)."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from tests.e2e.cluster import workloads
from tests.e2e.cluster.node_config import HOME
from tests.e2e.cluster.workloads import Manifest

NAME, NAMESPACE = "coredns", "kube-system"
ADDRESS = "127.0.0.1"
"""Where it answers, on its node."""
READY_PORT = 8181
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
COREFILE = f"""
.:53 {{
    bind {ADDRESS}
    errors
    ready {ADDRESS}:{READY_PORT}
    kubernetes cluster.local {{
        kubeconfig /etc/coredns/kubeconfig
    }}
}}
"""


def manifests(node: str, server: str, authority: bytes) -> list[Manifest]:
    """All of it; the program must be in the node's home.

    Args:
        node: Where it runs.
        server: The URL that it asks.
        authority: The certificate by which that is known.
    """
    here = {"name": NAME, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"system:{NAME}"}
    config = {"Corefile": COREFILE, "kubeconfig": _kubeconfig(server, authority)}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role["name"]},
            "rules": [
                _readable("", "endpoints", "services", "pods", "namespaces"),
                _readable("discovery.k8s.io", "endpointslices"),
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": role["name"]}, "roleRef": role, "subjects": [{"kind": "ServiceAccount", **here}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": here, "data": config},
        _pod(node),
    ]  # fmt: skip


def provide(home: Path, program: Path) -> None:
    """Put the program into a node's home."""
    shutil.copy(program, home / NAME)


# Internal


def _pod(node: str) -> Manifest:
    run = workloads.container(
        NAME, f"/program/{NAME}", "-conf", "/etc/coredns/Corefile",
        readinessProbe={
            "httpGet": {"host": ADDRESS, "port": READY_PORT, "path": "/ready"}, "periodSeconds": 1,
        },
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/coredns"}, {"name": "program", "mountPath": f"/program/{NAME}"},
        ],
    )  # fmt: skip
    pod = workloads.pod(NAME, run, node=node)
    pod["metadata"]["namespace"] = NAMESPACE
    pod["spec"] |= {
        "serviceAccountName": NAME, "hostNetwork": True,
        "volumes": [
            {"name": "config", "configMap": {"name": NAME}},
            {"name": "program", "hostPath": {"path": f"{HOME}/{NAME}", "type": "File"}},
        ],
    }  # fmt: skip
    return pod


def _readable(group: str, *resources: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": ["list", "watch"]}


def _kubeconfig(server: str, authority: bytes) -> str:
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": NAME, "user": {"tokenFile": f"{ACCOUNT}/token"}}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": NAME}}],
        "current-context": "node",
    }
    return json.dumps(content)
