"""What runs on the nodes, as manifests."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.cluster import images

Manifest = dict[str, Any]

COUNTING = "i=0; while :; do i=$((i + 1)); echo line $i; sleep 0.1; done"


def pod(name: str, *containers: Manifest, node: str = "", labels: dict[str, str] | None = None) -> Manifest:
    """A pod of the namespace `default`, which a node's kubelet or, with one, an API server takes."""
    spec: Manifest = {"terminationGracePeriodSeconds": 1, "dnsPolicy": "Default", "containers": list(containers)}
    if node:
        spec["nodeName"] = node
    metadata = {"name": name, "namespace": "default", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def container(name: str, *command: str, **more: object) -> Manifest:
    """A container of the box image; without a command it does nothing, for ever."""
    made: Manifest = {"name": name, "image": images.BOX, "imagePullPolicy": "Never", **more}
    if command:
        made["command"] = list(command)
    return made


def listed(*manifests: Manifest) -> bytes:
    """What `kubectl apply -f -` reads."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}).encode()


def shell() -> Manifest:
    """A container to work in."""
    return container("shell")


def counter() -> Manifest:
    """A container that logs ten lines each second."""
    return container("counter", "sh", "-c", COUNTING)


def web(port: int = 8080, page: str = "hello from the edge") -> Manifest:
    """A container with an HTTP server."""
    serve = f"mkdir /www && echo '{page}' > /www/index.html && exec httpd -f -p {port} -h /www"
    return container("web", "sh", "-c", serve)
