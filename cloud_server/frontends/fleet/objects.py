"""Makes Kubernetes objects of agents: nodes with their conditions, leases, namespaces. Pods are in `pods.py`.

What an agent says of itself is cut, cleaned and put under a prefix of its own before anybody sees it.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.resources import LEASE_NAMESPACE
from tunnel.core.wire.host_port import split_host_port
from tunnel.core.wire.spoken import printable
from tunnel.kubeapi.status import Json

LABEL_PREFIX = "longline/"
"""The prefix of an agent's own labels, so that none can pretend to be a role or a zone of Kubernetes."""
BOX_FAULT = "BoxFault"
"""The condition of a node whose box itself says that something is wrong: its clock, its DNS, a part that is down."""
LEASE_DURATION_S = 15
"""Seconds between two signs of life of a connected agent at most; an agent that is silent for longer is cut."""
MAX_CLAIM_CHARS = 256
MAX_LABELS = 64
MAX_ADDRESSES = 16

_NO_KUBELET_PORT: Json = {"kubeletEndpoint": {"Port": 0}}
_NO_IMAGES: list[Json] = []
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UID_SPACE = uuid.UUID("6f1b0c52-3c3f-5a0e-9f5e-2f8f4f6a7d11")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def timestamp(moment: datetime | None) -> str:
    """Returns a time by RFC 3339 in UTC, to the second, as Kubernetes writes it; 1970 for None."""
    return (moment or _EPOCH).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def uid_of(kind: str, name: str) -> str:
    """Returns a stable id for an object that is derived from an agent."""
    return str(uuid.uuid5(_UID_SPACE, f"{kind}/{name}"))


def claim(text: str) -> str:
    """Returns a claim of an agent fit to be shown, and at most `MAX_CLAIM_CHARS` long."""
    return printable(text, MAX_CLAIM_CHARS)


def node_object(agent: AgentView, created: datetime, lacks: Iterable[Json] = ()) -> Json:
    """Returns the Node of an agent. It is Ready while the agent is connected, whatever the box lacks.

    Args:
        agent: what is known of it.
        created: when it was first seen.
        lacks: conditions that tell what the box lacks: of its logs, or of its pods.
    """
    conditions = [_ready_condition(agent, created)]
    if agent.facts:
        conditions.append(_facts_condition(agent, created))
    conditions.extend(one | {"lastHeartbeatTime": timestamp(agent.since or created)} for one in lacks)
    capacity = _capacity(agent)
    status: Json = {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions,
        "addresses": _addresses(agent),
        "nodeInfo": _node_info(agent),
        "daemonEndpoints": _NO_KUBELET_PORT,
        "images": _NO_IMAGES,
    }
    spec: Json = {"providerID": f"longline://{agent.name}"}
    if not agent.connected:
        taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
        spec["taints"] = [taint | ({"timeAdded": timestamp(agent.since)} if agent.since else {})]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": agent.name,
            "uid": uid_of("node", agent.name),
            "creationTimestamp": timestamp(created),
            "labels": _labels(agent),
        },
        "spec": spec,
        "status": status,
    }


def with_heartbeat(node: Json, last_seen: datetime | None) -> Json:
    """Returns a Node with the time of its agent's last sign of life, which alone makes no new version of the Node."""
    if last_seen is None:
        return node
    conditions = [item | {"lastHeartbeatTime": timestamp(last_seen)} for item in node["status"]["conditions"]]
    return node | {"status": node["status"] | {"conditions": conditions}}


def internal_address(node: Json) -> str:
    """Returns the first address of a Node in its own network; empty when it has said none."""
    addresses = node["status"]["addresses"]
    return next((item["address"] for item in addresses if item["type"] == "InternalIP"), "")


def lease_object(agent: str, created: datetime, renewed: datetime, version: int) -> Json:
    """Returns the Lease that `kubectl describe node` shows. It is made when asked for, with that moment's version."""
    return {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": agent,
            "namespace": LEASE_NAMESPACE,
            "uid": uid_of("lease", agent),
            "resourceVersion": str(version),
            "creationTimestamp": timestamp(created),
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": agent, "uid": uid_of("node", agent)},
            ],
        },
        "spec": {
            "holderIdentity": agent,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": renewed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }


def namespace_object(name: str, created: datetime) -> Json:
    """Returns the Namespace object of a namespace."""
    return {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "uid": uid_of("namespace", name),
            "creationTimestamp": timestamp(created),
            "labels": {"kubernetes.io/metadata.name": name},
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


# Internal


def _ready_condition(agent: AgentView, created: datetime) -> Json:
    if agent.connected:
        status, reason, message = "True", "AgentConnected", "the agent is connected to this server"
    elif agent.since is None:
        status, reason, message = "Unknown", "AgentNeverSeen", "the agent has not connected since this server started"
    else:
        status, reason = "Unknown", "AgentAway"
        message = f"the agent is away; last heard of at {timestamp(agent.last_seen)}"
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": timestamp(agent.since or created),
        "lastTransitionTime": timestamp(agent.since or created),
    }


def _facts_condition(agent: AgentView, created: datetime) -> Json:
    """Returns the condition that shows what the box knows of itself: True while something is wrong there; it stays, as
    False, for what is over.
    """
    current = [fact for fact in agent.facts if fact.until is None]
    shown = current or agent.facts
    texts = [f"{fact.code}: {fact.text}" for fact in shown]
    since = max(fact.since if fact.until is None else fact.until for fact in shown)
    return {
        "type": BOX_FAULT,
        "status": "True" if current else "False",
        "reason": claim(shown[0].code) if current else "Mended",
        "message": claim("; ".join(texts) if current else f"until {timestamp(since)}: {'; '.join(texts)}"),
        "lastHeartbeatTime": timestamp(agent.since or created),
        "lastTransitionTime": timestamp(since),
    }


def _addresses(agent: AgentView) -> list[Json]:
    found: list[Json] = []
    for text in list(agent.node.addresses if agent.node else ())[:MAX_ADDRESSES]:
        try:
            found.append({"type": "InternalIP", "address": str(ipaddress.ip_address(text))})
        except ValueError:
            continue
    host, _ = split_host_port(agent.address)
    with suppress(ValueError):  # never connected, or through something that has no address
        found.append({"type": "ExternalIP", "address": str(ipaddress.ip_address(host))})
    found.append({"type": "Hostname", "address": claim(agent.node.hostname if agent.node else "") or agent.name})
    return found


def _node_info(agent: AgentView) -> Json:
    node = agent.node
    version = claim(agent.version)
    return {
        "machineID": claim(node.machine_id) if node else "",
        "systemUUID": "",
        "bootID": "",
        "kernelVersion": claim(node.kernel) if node else "",
        "osImage": claim(node.os_image) if node else "",
        "containerRuntimeVersion": f"longline://{version}" if version else "",
        "kubeletVersion": version,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": _architecture(agent),
    }


def _architecture(agent: AgentView) -> str:
    machine = claim(agent.node.architecture) if agent.node else ""
    return _ARCHITECTURES.get(machine, machine)


def _capacity(agent: AgentView) -> Json:
    node = agent.node
    if node is None or not node.cpus:
        return {}
    return {"cpu": str(node.cpus), "memory": f"{node.memory_bytes // 1024}Ki", "pods": "110"}


def _labels(agent: AgentView) -> Json:
    architecture = _architecture(agent)
    labels: Json = {"kubernetes.io/hostname": agent.name, "kubernetes.io/os": "linux"}
    if _LABEL_VALUE.fullmatch(architecture):
        labels["kubernetes.io/arch"] = architecture
    own = sorted(agent.node.labels.items())[:MAX_LABELS] if agent.node else []
    for name, value in own:
        if _LABEL_NAME.fullmatch(name) and _LABEL_VALUE.fullmatch(value):
            labels[LABEL_PREFIX + name] = value
    return labels
