"""Reads the boxes of a fleet as its API lists them: names, labels, what they offer, and which of them are meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tunnel.core.wire.faults import AGENT_NOT_KNOWN, CONTAINER_UNKNOWN, NOTHING_SELECTED, USAGE
from tunnel.core.wire.spoken import printable
from tunnel.kubeapi.selectors import parse_labels
from tunnel.kubeapi.status import ApiError
from tunnel.tool.answers import NODES, POD, ROWS
from tunnel.tool.api import MAX_ANSWER_BYTES, Api, ApiFailed
from tunnel.tool.remote_exec import HOST, NAMESPACE

LABEL_PREFIX = "longline/"
"""The prefix that the fleet API puts before a box's own labels; people write them without it."""
MAX_SUGGESTED = 3
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
"""Asks for rows as kubectl prints them; with `includeObject=None` nothing else comes."""
HINT_BYTES = 4 * 1024 * 1024
"""The most bytes that are read for a hint at close names: the rows of 10,000 boxes are 1.4 MB, their nodes 12 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box, as its Node describes it."""

    name: str
    up: bool
    since: str
    """The time of the last change of `up`, RFC 3339; "" where that is not told."""
    labels: Mapping[str, str]
    """The box's own labels, without the prefix."""
    all_labels: Mapping[str, str]
    """All labels, those that the fleet API adds included; the box's own stand there with the prefix and without it."""
    version: str
    system: str
    address: str
    architecture: str

    def shown(self) -> dict[str, Any]:
        """Returns the box as `-o json` shows it."""
        return {
            "name": self.name,
            "state": self.state,
            "since": self.since or None,
            "labels": dict(self.labels),
            "version": self.version,
            "system": self.system,
            "architecture": self.architecture,
            "address": self.address,
        }

    @property
    def state(self) -> str:
        """Returns `up` or `away`."""
        return "up" if self.up else "away"


@dataclass(frozen=True, slots=True)
class Offer:
    """A container of a box: its shell, a unit, or a file."""

    name: str
    source: str
    """The container's image: `host`, `unit:nginx.service`, `file:/var/log/app.log`."""
    state: str
    restarts: int


def list_boxes(api: Api, selector: str = "") -> list[Box]:
    """Returns the boxes that a label selector names, in the order of their names; all for "".

    Raises:
        ApiFailed: they cannot be listed, or the selector cannot be parsed.
    """
    try:
        requirements = parse_labels(selector)
    except ApiError as error:
        raise ApiFailed(f"-l {selector}: {error.message}", fault=USAGE) from error
    boxes = [_box(item) for item in api.get("/api/v1/nodes", NODES).get("items") or ()]
    chosen = [box for box in boxes if all(need.matches(dict(box.all_labels)) for need in requirements)]
    return sorted(chosen, key=lambda box: box.name)


def box_names(api: Api, limit_bytes: int = MAX_ANSWER_BYTES) -> list[str]:
    """Returns the names of all boxes, by a list that has little else.

    Raises:
        ApiFailed: they cannot be listed, or the list is longer than the limit.
    """
    found = api.get("/api/v1/nodes?includeObject=None", ROWS, accept=TABLE, limit_bytes=limit_bytes)
    return [printable(str(name)) for row in found.get("rows") or () for name in row["cells"][:1]]


def chosen_boxes(api: Api, selector: str) -> list[str]:
    """Returns the names of the boxes that a selector names.

    Raises:
        ApiFailed: it names none, or they cannot be listed.
    """
    names = [box.name for box in list_boxes(api, selector)]
    if not names:
        raise ApiFailed(f"no box has the labels {selector}: see longline ls -o wide", fault=NOTHING_SELECTED)
    return names


def offers_of(api: Api, box: str) -> list[Offer]:
    """Returns what a box offers: the containers of its pod.

    Raises:
        ApiFailed: there is no such box, or it offers nothing.
    """
    pod = api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{quote(box, safe='')}", POD)
    statuses = {status.get("name"): status for status in pod["status"].get("containerStatuses") or ()}
    return [
        Offer(
            printable(container["name"]),
            printable(container.get("image") or ""),
            _state(statuses.get(container["name"], {})),
            int(statuses.get(container["name"], {}).get("restartCount") or 0),
        )
        for container in pod["spec"].get("containers") or ()
    ]


def log_container(api: Api, box: str, wanted: str) -> str:
    """Returns the container whose log is meant: by its name, or the unit or path behind it; "" means the only one.

    Raises:
        ApiFailed: there is none, or it is not clear which.
    """
    offers = [offer for offer in offers_of(api, box) if offer.name != HOST]
    if not wanted:
        if len(offers) == 1:
            return offers[0].name
        what = ", ".join(offer.name for offer in offers) or "none: its [host] names no units or files"
        raise ApiFailed(f"{box} has {len(offers)} logs, name one: {what}", fault=CONTAINER_UNKNOWN)
    for offer in offers:
        if wanted in (offer.name, offer.source.partition(":")[2]):
            return offer.name
    names = [offer.name for offer in offers]
    text = f"{box} has no log {wanted}{did_you_mean(wanted, names)} (it has: {', '.join(names) or 'none'})"
    raise ApiFailed(text, fault=CONTAINER_UNKNOWN)


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Returns a hint to put behind an error: the names that are close to the wanted one, or ""."""
    known = list(names)
    close = [name for name in known if name.startswith(wanted)][:MAX_SUGGESTED]
    close = close or difflib.get_close_matches(wanted, known, n=MAX_SUGGESTED, cutoff=0.6)
    return f": did you mean {' or '.join(close)}?" if close else ""


def unknown_box(api: Api, name: str, error: ApiFailed) -> ApiFailed:
    """Returns an error that suggests similar names if no box has this name; any other error stays as it is."""
    if error.status != 404:
        return error
    try:
        names = box_names(api, HINT_BYTES)
    except ApiFailed:
        return error
    if name in names:
        return error
    hint = did_you_mean(name, names) or ": longline ls shows them"
    return ApiFailed(f"there is no box named {name}{hint}", 404, AGENT_NOT_KNOWN)


# Internal


def _box(node: Mapping[str, Any]) -> Box:
    metadata, status = node["metadata"], node.get("status") or {}
    labels: dict[str, str] = metadata.get("labels") or {}
    own = {name.removeprefix(LABEL_PREFIX): value for name, value in labels.items() if name.startswith(LABEL_PREFIX)}
    ready = _condition(status.get("conditions") or (), "Ready")
    info = status.get("nodeInfo") or {}
    addresses = status.get("addresses") or ()
    return Box(
        name=printable(metadata["name"]),
        up=ready.get("status") == "True",
        since=ready.get("lastTransitionTime") or "",
        labels=own,
        all_labels={**labels, **own},
        version=printable(str(info.get("kubeletVersion") or "")),
        system=printable(str(info.get("osImage") or "")),
        address=printable(next((one.get("address") or "" for one in addresses if one.get("type") == "InternalIP"), "")),
        architecture=printable(str(info.get("architecture") or "")),
    )


def _condition(conditions: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((one for one in conditions if one.get("type") == kind), {})


def _state(status: Mapping[str, Any]) -> str:
    for kind, detail in (status.get("state") or {}).items():
        reason = detail.get("reason") if isinstance(detail, dict) else None
        return printable(f"{kind} ({reason})" if reason and kind != "running" else kind)
    return "unknown"
