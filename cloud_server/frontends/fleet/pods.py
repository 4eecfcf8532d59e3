"""Makes an agent's pods: each that its kubelet lists, safe to show and marked while it is away, or a stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.objects import timestamp, uid_of
from cloud_server.frontends.fleet.pod_fields import Faults, Unfit, fields_of
from cloud_server.frontends.fleet.pod_names import MAX_NAME_CHARS, key_of, shown_name
from cloud_server.frontends.fleet.resources import DEFAULT_NAMESPACE
from tunnel.core.wire.faults import CONTAINER_UNKNOWN
from tunnel.core.wire.names import KUBELET, as_offered
from tunnel.kubeapi.encoding import dicts
from tunnel.kubeapi.status import ApiError, Json

SOURCES_MISSING = "SourcesMissing"
"""The condition of a box's own pod when a unit has failed, or a file that it offers cannot be read. Its Node has it
too.
"""
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")
"""The fields that a condition of a Node has in common with one of a pod."""
_READY_TYPES = ("ContainersReady", "Ready")
_BEGINNING = frozenset({"Activating", "ContainerCreating", "PodInitializing"})
"""The reasons of a waiting container that will run soon."""
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
STAND_IN_CONTAINER = "host"
MAX_NAMED = 32
"""How many containers a message names."""

_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
_STATUS_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def _waiting(reason: str, message: str) -> list[Json]:
    waiting = {"waiting": {"reason": reason, "message": message}}
    named = {"name": STAND_IN_CONTAINER, "image": STAND_IN_CONTAINER, "imageID": ""}
    return [{**named, "ready": False, "restartCount": 0, "state": waiting}]


# Shared by the stand-ins of thousands of agents: objects of the store are never changed in place.
_STAND_IN_CONTAINERS: list[Json] = [{"name": STAND_IN_CONTAINER, "image": STAND_IN_CONTAINER}]
_NOTHING_OFFERED = _waiting("NothingOffered", "the box's edge-agent.toml has neither [host] nor [kubelet]")
_NOT_KNOWN = _waiting("NotKnown", "the agent has not said what it offers")


def pod_of(raw: object, agent: str, faults: Faults) -> Json:
    """Returns a pod as it is shown: named after its box, with the fields that are shown, each as the API has it.

    Args:
        raw: the decoded entry of a kubelet's list. The box is not trusted: it may be anything.
        agent: the box's name, which becomes the node of the pod.
        faults: takes note of each field that had to be left out.

    Raises:
        Unfit: it is no pod, or has a name that no pod can have.
    """
    metadata, spec, status = fields_of(raw, faults)
    name, namespace = metadata.get("name"), metadata.get("namespace") or DEFAULT_NAMESPACE
    if name is None or _SUBDOMAIN.fullmatch(name) is None or _LABEL.fullmatch(namespace) is None:
        raise Unfit
    shown = shown_name(agent, namespace, name)
    if len(shown) > MAX_NAME_CHARS:
        raise Unfit
    created = metadata.get("creationTimestamp") or status.get("startTime")  # what a kubelet runs by itself has no date
    kept = metadata | {
        "name": shown,
        "namespace": namespace,
        # Clients keep objects by this. Were it the box's to choose, one box's pod could pass for another's.
        "uid": uid_of("pod", f"{agent}/{namespace}/{name}/{metadata.get('uid', '')}"),
    }
    if created is not None:
        kept["creationTimestamp"] = created
    status.setdefault("phase", "Unknown")
    return {"kind": "Pod", "apiVersion": "v1", "metadata": kept, "spec": spec | {"nodeName": agent}, "status": status}


def offers_kubelet(agent: AgentView) -> bool:
    """Returns whether the agent said, when it last told of its box, that it has a kubelet to ask."""
    return agent.node is not None and as_offered(KUBELET, agent.node.services) in agent.node.services


def stand_in(agent: AgentView, created: datetime) -> Json:
    """Returns the pod to show for an agent whose kubelet has not been asked yet, or that offers none."""
    nothing_offered = agent.node is not None and not offers_kubelet(agent)
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": agent.name,
            "namespace": DEFAULT_NAMESPACE,
            "uid": uid_of("pod", agent.name),
            "creationTimestamp": timestamp(created),
        },
        "spec": {
            "nodeName": agent.name,
            "hostNetwork": True,
            "restartPolicy": "Always",
            "containers": _STAND_IN_CONTAINERS,
        },
        "status": {
            "phase": "Pending",
            "containerStatuses": _NOTHING_OFFERED if nothing_offered else _NOT_KNOWN,
        },
    }


def away(pod: Json, agent: AgentView) -> Json:
    """Returns a pod as last known, marked as not reachable."""
    status = dict(pod["status"])
    since = timestamp(agent.since) if agent.since else None
    status |= {
        "phase": "Unknown",
        "reason": "AgentAway",
        "message": f"agent {agent.name} is not connected" + (f" since {since}" if since else ""),
    }
    for name in _STATUS_LISTS:
        if name in status:
            status[name] = [item | {"ready": False} for item in status[name]]
    conditions = [item for item in dicts(status.get("conditions")) if item.get("type") not in _READY_TYPES]
    gone = {"status": "False", "reason": "AgentAway"} | ({"lastTransitionTime": since} if since else {})
    status["conditions"] = [*conditions, *({"type": kind, **gone} for kind in _READY_TYPES)]
    return pod | {"status": status}


def sources_missing(pods: Iterable[Json], agent: str) -> Json | None:
    """Returns the condition of a box's own pod that tells what it lacks, as its Node shows it; None without one."""
    for pod in pods:
        if not is_of_box(pod, agent):
            continue
        for item in dicts(pod["status"].get("conditions")):
            if item.get("type") == SOURCES_MISSING and item.get("status") in ("True", "False"):
                return {name: item[name] for name in _CONDITION if name in item}
    return None


def is_of_box(pod: Json, agent: str) -> bool:
    """Returns whether a pod is the box itself.

    That is the one pod of the built-in kubelet which has accounts and recordings.
    """
    return key_of(pod) == (DEFAULT_NAMESPACE, agent)


def is_settled(pod: Json) -> bool:
    """Returns whether a pod is where it is meant to be: it is ready, with no container about to run, or has ended."""
    status = pod["status"]
    if status["phase"] != "Running":
        return status["phase"] in ("Succeeded", "Failed")
    ready = any(
        item.get("type") == "Ready" and item.get("status") == "True" for item in dicts(status.get("conditions"))
    )
    return ready and not any(_waits_for(item) in _BEGINNING for item in dicts(status.get("containerStatuses")))


def containers(pod: Json) -> list[str]:
    """Returns the names of all containers of a pod, the ordinary ones first."""
    return [item["name"] for name in _CONTAINER_LISTS for item in pod["spec"].get(name, ())]


def choose_container(pod: Json, wanted: str) -> str:
    """Returns the container that a request means; without a name, the pod's default one, else its first.

    Raises:
        ApiError: 400, the pod has none of that name, or none at all.
    """
    known = containers(pod)
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in known:
            raise ApiError(
                400,
                f"container {wanted} is not valid for pod {name}: it has {_named(known)}",
                cause=cause(CONTAINER_UNKNOWN),
            )
        return wanted
    if not known:
        raise ApiError(400, f"pod {name} has no containers", cause=cause(CONTAINER_UNKNOWN))
    preferred = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    return preferred if preferred in known else known[0]


# Internal


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}" if names else "none"


def _waits_for(container_status: Json) -> str:
    state = container_status.get("state")
    waiting = state.get("waiting") if isinstance(state, dict) else None
    return str(waiting.get("reason")) if isinstance(waiting, dict) else ""
