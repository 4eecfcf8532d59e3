"""Adds what was measured of a box to its Node: the conditions of pressure, and the capacity of its disk."""

from __future__ import annotations

from cloud_server.frontends.fleet.objects import timestamp
from cloud_server.frontends.fleet.usage import (
    LEAST_DISK,
    LEAST_INODES,
    LEAST_MEMORY_BYTES,
    LEAST_PROCESSES,
    Usage,
    lacking,
)
from tunnel.kubeapi.status import Json


def with_usage(node: Json, usage: Usage | None) -> Json:
    """Returns a Node with what was measured of its box.

    Args:
        node: the Node.
        usage: what was measured last; None when nothing was, which the conditions say then.
    """
    status = node["status"]
    if usage is None:
        since = node["metadata"]["creationTimestamp"]
        text = "not measured yet: kubectl top node and kubectl describe node measure it"
        found = [_condition(kind, "Unknown", "NotMeasured", text, since, since) for kind in _TEXTS]
    else:
        at = timestamp(usage.at)
        found = [
            _condition(kind, str(short), *_TEXTS[kind][short], at, timestamp(usage.changed[kind]))
            for kind, short in lacking(usage).items()
        ]
    capacity = _with_disk(status["capacity"], usage)
    return node | {
        "status": status
        | {"conditions": [*found, *status["conditions"]], "capacity": capacity, "allocatable": capacity}
    }


# Internal

_TEXTS = {
    "MemoryPressure": (
        ("BoxHasSufficientMemory", "the box has memory to spare"),
        ("BoxHasInsufficientMemory", f"less than {LEAST_MEMORY_BYTES >> 20} MiB of memory are available"),
    ),
    "DiskPressure": (
        ("BoxHasNoDiskPressure", "the box's root file system has room"),
        ("BoxHasDiskPressure", f"under {LEAST_DISK:.0%} of the root disk or {LEAST_INODES:.0%} of its inodes are left"),
    ),
    "PIDPressure": (
        ("BoxHasSufficientPID", "the box can start more processes"),
        ("BoxHasInsufficientPID", f"less than {LEAST_PROCESSES:.0%} of the box's process ids are left"),
    ),
}  # fmt: skip


def _with_disk(capacity: Json, usage: Usage | None) -> Json:
    if usage is None or usage.disk.capacity is None:
        return capacity
    return {**capacity, "ephemeral-storage": f"{usage.disk.capacity // 1024}Ki"}


def _condition(kind: str, status: str, reason: str, message: str, heartbeat: str, changed: str) -> Json:
    return {
        "type": kind,
        "status": status,
        "lastHeartbeatTime": heartbeat,
        "lastTransitionTime": changed,
        "reason": reason,
        "message": message,
    }
