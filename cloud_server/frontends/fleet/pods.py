"""Makes an agent's pods: those that its kubelet lists, safe to show and marked while it is away, or a stand-in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.objects import claim, timestamp, uid_of
from cloud_server.frontends.fleet.resources import DEFAULT_NAMESPACE
from tunnel.core.wire.faults import CONTAINER_UNKNOWN
from tunnel.core.wire.names import KUBELET, as_offered
from tunnel.kubeapi.status import ApiError, Json

MAX_PODS = 512
"""How many pods are taken from one agent; a real kubelet stops at 110 by default."""
SOURCES_MISSING = "SourcesMissing"
"""The condition of a box's own pod when a unit has failed, or a file that it offers cannot be read. Its Node has it
too.
"""
_READY_TYPES = ("ContainersReady", "Ready")
_BEGINNING = frozenset({"Activating", "ContainerCreating", "PodInitializing"})
"""The reasons of a waiting container that will run soon."""
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
STAND_IN_CONTAINER = "host"

_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_CONTAINER = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.@:+\\]{0,252}")
"""The names of containers; wider than those of Kubernetes, since a systemd unit such as `getty@tty1.service` is a
container here.
"""
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


def pods_from_kubelet(body: object, agent: str) -> list[Json]:
    """Returns the pods of a kubelet's `/pods` answer, at most `MAX_PODS`; entries that are no pods are left out.

    Args:
        body: the decoded answer. The box is not trusted: it may be anything.
        agent: its name, which becomes the node of each pod.
    """
    items = body.get("items") if isinstance(body, dict) else None
    pods = (_clean(item, agent) for item in dicts(items)[:MAX_PODS])
    return [pod for pod in pods if pod is not None]


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
        if (pod["metadata"]["namespace"], pod["metadata"]["name"]) != (DEFAULT_NAMESPACE, agent):
            continue
        for item in dicts(pod["status"].get("conditions")):
            if item.get("type") == SOURCES_MISSING and item.get("status") in ("True", "False"):
                texts = {name: claim(str(item.get(name, ""))) for name in ("reason", "message")}
                return {"type": SOURCES_MISSING, "status": item["status"], **texts, **_since(item)}
    return None


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
                f"container {wanted} is not valid for pod {name}: it has {', '.join(known) or 'none'}",
                cause=cause(CONTAINER_UNKNOWN),
            )
        return wanted
    if not known:
        raise ApiError(400, f"pod {name} has no containers", cause=cause(CONTAINER_UNKNOWN))
    preferred = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    return preferred if preferred in known else known[0]


def dicts(value: object) -> list[dict[str, Any]]:
    """Returns the objects of a list that came from elsewhere; an empty list when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# Internal


def _since(condition: Json) -> Json:
    """Returns the time of a condition's last change, unless that is no time: a client could read no Node any more."""
    try:
        moment = datetime.fromisoformat(str(condition.get("lastTransitionTime")))
        return {"lastTransitionTime": timestamp(moment if moment.tzinfo else None)}
    except (ValueError, OverflowError):
        return {}


def _waits_for(container_status: Json) -> str:
    state = container_status.get("state")
    waiting = state.get("waiting") if isinstance(state, dict) else None
    return str(waiting.get("reason")) if isinstance(waiting, dict) else ""


def _clean(raw: Json, agent: str) -> Json | None:
    metadata, spec, status = raw.get("metadata"), raw.get("spec"), raw.get("status")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or DEFAULT_NAMESPACE
    if not _matches(_SUBDOMAIN, name) or not _matches(_LABEL, namespace):
        return None
    kept: Json = {"name": name, "namespace": namespace}
    uid = metadata.get("uid")
    kept["uid"] = claim(uid) if isinstance(uid, str) and uid else uid_of("pod", f"{agent}/{namespace}/{name}")
    if created := _created(metadata, status):
        kept["creationTimestamp"] = created
    for field in ("labels", "annotations"):
        if pairs := dict(_strings(metadata.get(field))):
            kept[field] = pairs
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": kept,
        "spec": _named_lists(spec, _CONTAINER_LISTS) | {"nodeName": agent},
        "status": _clean_status(status if isinstance(status, dict) else {}),
    }


def _created(metadata: Json, status: object) -> str:
    """Returns since when the pod exists. No API server has dated what a kubelet runs by itself; then it is the time
    since when it runs. Empty when neither is known.
    """
    started = status.get("startTime") if isinstance(status, dict) else None
    return next((moment for moment in (metadata.get("creationTimestamp"), started) if isinstance(moment, str)), "")


def _clean_status(status: Json) -> Json:
    cleaned = _named_lists(status, _STATUS_LISTS)
    if not isinstance(cleaned.get("phase"), str):
        cleaned["phase"] = "Unknown"
    return cleaned


def _named_lists(part: Json, fields: tuple[str, ...]) -> Json:
    """Returns the part with only well-formed entries in the lists that the fleet API itself reads."""
    cleaned = dict(part)
    for field in fields:
        if field in cleaned:
            cleaned[field] = [item for item in dicts(cleaned[field]) if _matches(_CONTAINER, item.get("name"))]
    return cleaned


def _strings(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and isinstance(item, str):
                yield key, item


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
