"""Makes `meta.k8s.io/v1` Tables: the columns that kubectl prints, filled as a Kubernetes API server fills them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tunnel.kubeapi.encoding import dicts
from tunnel.kubeapi.status import Json

Row = list[object]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a Table; those of priority 1 appear with `-o wide`."""

    name: str
    priority: int = 0
    type: str = "string"
    format: str = ""

    def definition(self) -> Json:
        """Returns the column as a Table carries it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.name,
            "priority": self.priority,
        }


_ROLE = "node-role.kubernetes.io/"
"""What the labels of a node begin with that name its roles (kubectl v1.34 `pkg/printers/internalversion`)."""
_NAME = Column("Name", format="name")
_AGE = Column("Age")


@dataclass(frozen=True, slots=True)
class Printer:
    """The columns of one resource, and the function that fills a row of them."""

    columns: tuple[Column, ...]
    row: Callable[[Json, datetime], Row]


def table(resource: str, items: Sequence[Json], list_metadata: Json, now: datetime, include: str, header: bool) -> Json:
    """Returns a Table of objects.

    Args:
        resource: such as `pods`, or the kind where another group has such a resource too.
        items: the objects, one for each row.
        list_metadata: the metadata of the list that the Table stands for.
        now: the time up to which ages are counted.
        include: how much of an object its row carries: `Object`, `Metadata` or `None`.
        header: whether the columns are named; a watch names them in its first event only.
    """
    printer = _PRINTERS.get(resource, _PLAIN)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": [column.definition() for column in printer.columns] if header else [],
        "rows": [{"cells": printer.row(item, now), **_row_object(item, include)} for item in items],
    }


def human_duration(duration: timedelta) -> str:
    """Returns an age as kubectl prints it: at most two units, the finer one only while it matters."""
    seconds = int(duration.total_seconds())
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


# Internal


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _row_object(item: Json, include: str) -> Json:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": item}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
    return {"object": partial}


def _age(item: Json, now: datetime) -> str:
    created = _moment(item["metadata"].get("creationTimestamp"))
    return human_duration(now - created) if created else "<unknown>"


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _node_row(node: Json, now: datetime) -> Row:
    said = node.get("status") or {}
    ready = next((item.get("status") for item in dicts(said.get("conditions")) if item.get("type") == "Ready"), "")
    status = "Ready" if ready == "True" else "NotReady"
    if (node.get("spec") or {}).get("unschedulable"):
        status += ",SchedulingDisabled"
    info = said.get("nodeInfo") or {}
    return [
        node["metadata"]["name"],
        status,
        _roles(node),
        _age(node, now),
        info.get("kubeletVersion") or "<unknown>",
        _address(said, "InternalIP"),
        _address(said, "ExternalIP"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _roles(node: Json) -> str:
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(name.removeprefix(_ROLE) for name in labels if name.startswith(_ROLE))) or "<none>"


def _address(said: Json, kind: str) -> str:
    addresses = dicts(said.get("addresses"))
    return next((_text(item.get("address")) for item in addresses if item.get("type") == kind), "") or "<none>"


def _pod_row(pod: Json, now: datetime) -> Row:
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    statuses = dicts(status.get("containerStatuses"))
    ready = sum(1 for item in statuses if item.get("ready") is True)
    return [
        pod["metadata"]["name"],
        f"{ready}/{len(dicts(spec.get('containers')))}",
        _pod_status(status, statuses),
        _restarts(statuses, now),
        _age(pod, now),
        _text(status.get("podIP")) or "<none>",
        _text(spec.get("nodeName")) or "<none>",
        _text(status.get("nominatedNodeName")) or "<none>",
        "<none>",
    ]


def _pod_status(status: Json, statuses: list[Json]) -> str:
    """Returns the pod's own reason or phase, unless a container waits or ended for a reason of its own."""
    text = _text(status.get("reason")) or _text(status.get("phase")) or "Unknown"
    if text == "AgentAway":
        return text
    for item in reversed(statuses):
        state = item.get("state")
        for kind in ("waiting", "terminated"):
            part = state.get(kind) if isinstance(state, dict) else None
            if isinstance(part, dict) and (reason := _text(part.get("reason"))):
                text = reason
    if text == "Completed" and any(item.get("ready") is True for item in statuses):
        return "Running"
    return text


def _restarts(statuses: list[Json], now: datetime) -> str:
    count, last = 0, None
    for item in statuses:
        if isinstance(number := item.get("restartCount"), int):
            count += number
        earlier = item.get("lastState")
        ended = earlier.get("terminated") if isinstance(earlier, dict) else None
        if isinstance(ended, dict) and (moment := _moment(ended.get("finishedAt"))):
            last = max(last or moment, moment)
    return f"{count} ({human_duration(now - last)} ago)" if count and last else str(count)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _namespace_row(item: Json, now: datetime) -> Row:
    return [item["metadata"]["name"], item["status"]["phase"], _age(item, now)]


def _lease_row(item: Json, now: datetime) -> Row:
    return [item["metadata"]["name"], item["spec"]["holderIdentity"], _age(item, now)]


def _metrics_row(item: Json, _now: datetime) -> Row:
    used = [item["usage"]] if "usage" in item else [part["usage"] for part in item["containers"]]
    nanocores = sum(int(each["cpu"].removesuffix("n")) for each in used)
    kib = sum(int(each["memory"].removesuffix("Ki")) for each in used)
    return [item["metadata"]["name"], f"{nanocores}n", f"{kib}Ki", item["window"]]


def _event_row(item: Json, now: datetime) -> Row:
    seen = _moment(item["lastTimestamp"])
    involved = item["involvedObject"]
    return [
        human_duration(now - seen) if seen else "<unknown>",
        item["type"],
        item["reason"],
        f"{involved['kind'].lower()}/{involved['name']}",
        item["message"],
        item["metadata"]["name"],
    ]


def _plain_row(item: Json, now: datetime) -> Row:
    return [item["metadata"]["name"], _age(item, now)]


_PLAIN = Printer((_NAME, _AGE), _plain_row)
_METRICS = Printer((_NAME, Column("CPU"), Column("Memory"), Column("Window")), _metrics_row)
_PRINTERS = {
    "events": Printer(
        (Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object"), Column("Message"), Column("Name", 1)),
        _event_row,
    ),
    "nodes": Printer(
        (
            _NAME,
            Column("Status"),
            Column("Roles"),
            _AGE,
            Column("Version"),
            Column("Internal-IP", 1),
            Column("External-IP", 1),
            Column("OS-Image", 1),
            Column("Kernel-Version", 1),
            Column("Container-Runtime", 1),
        ),
        _node_row,
    ),
    "pods": Printer(
        (
            _NAME,
            Column("Ready"),
            Column("Status"),
            Column("Restarts"),
            _AGE,
            Column("IP", 1),
            Column("Node", 1),
            Column("Nominated Node", 1),
            Column("Readiness Gates", 1),
        ),
        _pod_row,
    ),
    "namespaces": Printer((_NAME, Column("Status"), _AGE), _namespace_row),
    "NodeMetrics": _METRICS,
    "PodMetrics": _METRICS,
    "leases": Printer((_NAME, Column("Holder"), _AGE), _lease_row),
}
