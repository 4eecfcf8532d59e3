"""The box as one pod: its containers and the v1 PodList that describes them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.units import ContainerState, kubernetes_time

NAMESPACE = "default"
HOST = "host"
"""Container that stands for the box itself: where commands run."""
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_UID_SPACE = uuid.UUID("6f0c5f6e-5d0f-4f0a-9a53-2d1f4a6f7c11")


class Kind(Enum):
    """What a container stands for."""

    HOST = "host"
    UNIT = "unit"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Container:
    """One thing that the box offers."""

    name: str
    """As typed behind `-c`."""
    kind: Kind
    source: str
    """Name of the unit or path of the file; "" for the host."""

    @property
    def image(self) -> str:
        """Shown by kubectl; says where the log comes from."""
        return f"{self.kind.value}:{self.source}" if self.source else self.kind.value


def containers(settings: HostSettings) -> list[Container]:
    """What the settings offer, under names that are unique: the base name of a file may get `-2`, `-3`, and so on."""
    offered = [Container(HOST, Kind.HOST, "")] if settings.exec else []
    offered += [Container(unit, Kind.UNIT, unit) for unit in dict.fromkeys(settings.units)]
    taken = {HOST, *(container.name for container in offered)}
    for file in dict.fromkeys(settings.files):
        name = _free_name(file, taken)
        taken.add(name)
        offered.append(Container(name, Kind.FILE, str(file)))
    return offered


def pod_list(
    agent_name: str,
    offered: Sequence[Container],
    states: Mapping[str, ContainerState],
    started_at: datetime,
) -> dict[str, Any]:
    """The v1 PodList with the one pod of this box.

    Args:
        agent_name: name of the pod and of its node.
        offered: the containers.
        states: by name of the container.
        started_at: since when the agent offers them.
    """
    ready = all(states[container.name].running for container in offered)
    metadata: dict[str, Any] = {
        "name": agent_name,
        "namespace": NAMESPACE,
        "uid": str(uuid.uuid5(_UID_SPACE, agent_name)),
        "creationTimestamp": kubernetes_time(started_at),
    }
    if offered:
        # Named, so that kubectl does not comment on its choice at each exec.
        metadata["annotations"] = {_DEFAULT_CONTAINER: offered[0].name}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": agent_name,
            "hostNetwork": True,
            "restartPolicy": "Always",
            "containers": [{"name": container.name, "image": container.image} for container in offered],
        },
        "status": {
            # Always, whatever its units do: kubectl execs into no other pod.
            "phase": "Running",
            "startTime": kubernetes_time(started_at),
            "conditions": [_condition(kind, ready, started_at) for kind in ("Ready", "ContainersReady")],
            "containerStatuses": [_container_status(container, states[container.name]) for container in offered],
        },
    }
    return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]}


def _container_status(container: Container, state: ContainerState) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": state.running,
        "started": state.running,
        "restartCount": state.restarts,
        "state": state.state,
        "lastState": {},
    }


def _condition(kind: str, ready: bool, since: datetime) -> dict[str, Any]:
    return {"type": kind, "status": "True" if ready else "False", "lastTransitionTime": kubernetes_time(since)}


def _free_name(file: Path, taken: set[str]) -> str:
    name, number = file.name, 1
    while name in taken:
        number += 1
        name = f"{file.name}-{number}"
    return name
