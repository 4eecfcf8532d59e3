"""Names the pods of boxes: each name ends in its box's, so that no box can take, hide or imitate another's pod.

A box's own pod has the box's name. Every other pod is `POD.BOX`: `web` of box-7 is `web.box-7`. Names of boxes have no
dot, so the box can be read off the name, whatever a box calls its pods.
"""

from __future__ import annotations

from cloud_server.frontends.fleet.resources import DEFAULT_NAMESPACE
from tunnel.kubeapi.status import Json

MAX_NAME_CHARS = 253
"""The longest name of a pod in Kubernetes."""


def shown_name(agent: str, namespace: str, name: str) -> str:
    """Returns the name under which a pod of a box's kubelet is shown."""
    return agent if (namespace, name) == (DEFAULT_NAMESPACE, agent) else f"{name}.{agent}"


def box_of(namespace: str, shown: str) -> str:
    """Returns the box that a pod of this name belongs to, or would belong to; empty when there can be no such pod."""
    name, dot, agent = shown.rpartition(".")
    if dot:
        return agent if name else ""
    return shown if namespace == DEFAULT_NAMESPACE else ""


def own_name(shown: str) -> str:
    """Returns the name that a pod has at its box's kubelet."""
    return shown.rpartition(".")[0] or shown


def key_of(pod: Json) -> tuple[str, str]:
    """Returns the namespace and name of a pod."""
    return pod["metadata"]["namespace"], pod["metadata"]["name"]
