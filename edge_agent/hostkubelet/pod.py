"""Describes the box as one pod: its containers, and the v1 PodList that shows them."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.units import ContainerState, kubernetes_time

NAMESPACE = "default"
HOST = "host"
"""The name of the container that stands for the box itself: where commands run."""
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
SOURCES_MISSING = "SourcesMissing"
"""The condition that is true while a unit has failed, or something that is offered is not there. The pod is Ready all
the same: commands run, and the other logs can be read."""
MAX_NAME_CHARS = 240
"""The most characters of a container's name, before a number; the cloud server takes 253."""
_NOT_IN_NAMES = re.compile(r"[^-A-Za-z0-9_.@:+\\]+")
_NOT_AT_START = "-_.@:+\\"
_UID_SPACE = uuid.UUID("6f0c5f6e-5d0f-4f0a-9a53-2d1f4a6f7c11")


class Kind(Enum):
    """The kinds of things that a container stands for."""

    HOST = "host"
    UNIT = "unit"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Container:
    """One thing that the box offers."""

    name: str
    """The name as typed behind `-c`."""
    kind: Kind
    source: str
    """The name of the unit or the path of the file; "" for the host."""

    @property
    def image(self) -> str:
        """Returns what kubectl shows as the image; it says where the log comes from."""
        return f"{self.kind.value}:{self.source}" if self.source else self.kind.value


def containers(settings: HostSettings) -> list[Container]:
    """Returns what the settings offer, under the names of units and the base names of files.

    What cannot be in a container's name becomes a `-`; a name that is taken already gets `-2`, `-3`, and so on.
    """
    offered = [Container(HOST, Kind.HOST, "")] if settings.exec else []
    sources = [(Kind.UNIT, unit, unit) for unit in dict.fromkeys(settings.units)]
    sources += [(Kind.FILE, str(file), file.name) for file in dict.fromkeys(settings.files)]
    taken = {HOST}
    for kind, source, title in sources:
        name = _free_name(_container_name(title, kind.value), taken)
        taken.add(name)
        offered.append(Container(name, kind, source))
    return offered


class Transitions:
    """The memory of since when conditions have their status."""

    def __init__(self, started_at: datetime) -> None:
        """Begins with no conditions; those that come first are true since `started_at`."""
        self._started_at = started_at
        self._known: dict[str, tuple[str, datetime]] = {}

    def dated(self, condition: dict[str, Any], now: datetime) -> dict[str, Any]:
        """Returns the condition with the time since which it has its status: `now`, if the status has changed."""
        kind, status = condition["type"], condition["status"]
        known = self._known.get(kind)
        if known is None or known[0] != status:
            self._known[kind] = known = (status, self._started_at if known is None else now)
        return {**condition, "lastTransitionTime": kubernetes_time(known[1])}


def pod_list(
    agent_name: str,
    offered: Sequence[Container],
    states: Mapping[str, ContainerState],
    started_at: datetime,
    transitions: Transitions,
    now: datetime,
) -> dict[str, Any]:
    """Returns the v1 PodList with the one pod of this box.

    Args:
        agent_name: name of the pod and of its node.
        offered: the containers.
        states: the state of each by name of the container.
        started_at: since when the agent offers them.
        transitions: the times of this pod's conditions.
        now: the time.
    """
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
            "conditions": [transitions.dated(condition, now) for condition in _conditions(states)],
            "containerStatuses": [
                _container_status(agent_name, container, states[container.name]) for container in offered
            ],
        },
    }
    return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]}


def _container_status(agent_name: str, container: Container, state: ContainerState) -> dict[str, Any]:
    status = {
        "name": container.name,
        "image": container.image,
        "imageID": container.image,
        "ready": state.running,
        "started": state.running,
        "restartCount": state.restarts,
        "state": state.state,
        "lastState": {},
    }
    if state.exists:
        # Log viewers read no container without one, and begin anew when it changes: a unit's log goes on at a restart.
        number = hashlib.sha256(f"{agent_name}/{container.image}".encode()).hexdigest()
        status["containerID"] = f"longline://{number}"
    return status


def _conditions(states: Mapping[str, ContainerState]) -> list[dict[str, Any]]:
    """Returns the pod's conditions. It is Ready as long as the agent serves it, for that is what clients wait for."""
    unready = [name for name, state in states.items() if not state.running]
    missing = [(name, problem) for name, state in states.items() if (problem := _problem(state))]
    conditions: list[dict[str, Any]] = [
        {"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "Ready")
    ]
    ready: dict[str, Any] = {"type": "ContainersReady", "status": "False" if unready else "True"}
    if unready:
        text = f"containers with unready status: [{' '.join(unready)}]"
        ready |= {"reason": "ContainersNotReady", "message": text}
    sources: dict[str, Any] = {"type": SOURCES_MISSING, "status": "True" if missing else "False"}
    if missing:
        text = "; ".join(f"{name}: {text}" for name, (_, text) in missing)
        sources |= {"reason": missing[0][1][0], "message": text}
    else:
        sources |= {"reason": "AllThere", "message": "no unit has failed, and every file can be read"}
    return [*conditions, ready, sources]


def _problem(state: ContainerState) -> tuple[str, str] | None:
    """Returns what is wrong with a source, as a reason and in words.

    None: nothing is, though the source may have ended or not begun.
    """
    if not state.exists:
        waiting = state.state["waiting"]
        return waiting["reason"], waiting["message"]
    ended = state.state.get("terminated")
    if ended and ended["exitCode"]:
        return "UnitFailed", f"the unit failed with exit code {ended['exitCode']}"
    return None


def _container_name(title: str, otherwise: str) -> str:
    return _NOT_IN_NAMES.sub("-", title).lstrip(_NOT_AT_START)[:MAX_NAME_CHARS].rstrip("-") or otherwise


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
