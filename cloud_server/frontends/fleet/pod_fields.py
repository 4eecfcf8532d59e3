"""Copies of a pod, as a box's kubelet lists it, the fields that are shown, each only if it is what the API says it is.

kubectl reads a list as a whole: one number where a text belongs, in one pod of one box, and nobody sees any pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from typing import cast

from tunnel.core.wire.spoken import printable
from tunnel.kubeapi.status import Json

MAX_TEXT_CHARS = 1024
"""The longest text; longer ones are cut. Kubernetes allows 1,024 bytes for most names and 32 KiB for messages."""
MAX_ENTRIES = 512
"""The most entries of a list, such as a pod's containers."""
MAX_PAIRS = 64
"""The most labels of a pod, and as many annotations, node selectors or resources."""
MAX_FAULTS = 8
"""How many fields that are not what they should be are remembered by name."""

_INT32, _INT64 = 1 << 31, 1 << 63
_CONTAINER = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.@:+\\]{0,252}")
"""The names of containers; wider than those of Kubernetes, since a systemd unit such as `getty@tty1.service` is a
container here.
"""
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})")
"""RFC 3339 5.6, as Go's parser takes it."""
_QUANTITY = re.compile(
    r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
)
_LABEL_NAME = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class Unfit(Exception):
    """A value is not what its field is for."""


class Faults:
    """What was wrong in one list of pods: how many fields were left out, and the names of the first."""

    def __init__(self) -> None:
        """Begins without faults."""
        self.count = 0
        self.names: dict[str, None] = {}

    def add(self, name: str) -> None:
        """Takes note of a field that is left out. `name` is one of the API's, never the box's."""
        self.count += 1
        if len(self.names) < MAX_FAULTS:
            self.names[name] = None


Field = Callable[[object, Faults], object]
"""A function that returns what is shown of a value. It raises Unfit when nothing is."""


def fields_of(pod: object, faults: Faults) -> tuple[Json, Json, Json]:
    """Returns the metadata, spec and status that are shown of a pod. Nothing of them is shared with `pod`.

    Raises:
        Unfit: it is no pod.
    """
    match pod:
        case {"metadata": dict(), "spec": dict()}:
            pass
        case _:
            raise Unfit
    parts = cast("Json", _POD(pod, faults))
    return parts["metadata"], parts["spec"], parts.get("status", {})


# Internal - the kinds of values


def _text(value: object, _faults: Faults) -> str:
    if not isinstance(value, str):
        raise Unfit
    return printable(value, MAX_TEXT_CHARS)


def _matching(pattern: re.Pattern[str]) -> Field:
    def match(value: object, _faults: Faults) -> object:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise Unfit
        return value

    return match


def _time(value: object, _faults: Faults) -> str:
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise Unfit
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise Unfit from None
    return value


def _flag(value: object, _faults: Faults) -> bool:
    if not isinstance(value, bool):
        raise Unfit
    return value


def _number(limit: int) -> Field:
    def number(value: object, _faults: Faults) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
            raise Unfit
        return value

    return number


def _list(name: str, field: Field) -> Field:
    def entries(value: object, faults: Faults) -> list[object]:
        if not isinstance(value, list):
            raise Unfit
        found: list[object] = []
        for item in value[:MAX_ENTRIES]:
            try:
                found.append(field(item, faults))
            except Unfit:
                faults.add(name)
        if len(value) > MAX_ENTRIES:
            faults.add(name)
        return found

    return entries


def _map(name: str, key: re.Pattern[str], field: Field) -> Field:
    def pairs(value: object, faults: Faults) -> dict[str, object]:
        if not isinstance(value, dict):
            raise Unfit
        found: dict[str, object] = {}
        for one, item in islice(value.items(), MAX_PAIRS):
            try:
                if key.fullmatch(one) is None:
                    raise Unfit
                found[one] = field(item, faults)
            except Unfit:
                faults.add(name)
        if len(value) > MAX_PAIRS:
            faults.add(name)
        return found

    return pairs


def _annotations(value: object, faults: Faults) -> dict[str, object]:
    """Long ones are for programs, as what `kubectl apply` notes, and are no fault."""
    if not isinstance(value, dict):
        raise Unfit
    short = {name: text for name, text in value.items() if not isinstance(text, str) or len(text) <= MAX_TEXT_CHARS}
    found = _map("annotations", _LABEL_NAME, _text)(short, faults)
    assert isinstance(found, dict)
    return found


_names = {"kind", "apiVersion", "metadata", "spec", "status", "nodeName"}


def _record(needed: Sequence[str] = (), **fields: Field) -> Field:
    _names.update(fields)

    def record(value: object, faults: Faults) -> Json:
        if not isinstance(value, dict):
            raise Unfit
        found: Json = {}
        for name, field in fields.items():
            if (item := value.get(name)) is not None:
                try:
                    found[name] = field(item, faults)
                except Unfit:
                    faults.add(name)
        if not all(name in found for name in needed):
            raise Unfit
        return found

    return record


# Internal - the fields: those that kubectl get, describe, exec, attach, cp, port-forward and logs look at, without a
# container's environment, which is as often a secret as it is of use, and volumes. With these a pod took twice as much.

_NAME = _matching(_CONTAINER)
_I32, _I64 = _number(_INT32), _number(_INT64)
_QUANTITIES = _map("resources", _LABEL_NAME, _matching(_QUANTITY))
_ADDRESSES = _record(("ip",), ip=_text)
_STATE = _record(
    waiting=_record(reason=_text, message=_text),
    running=_record(startedAt=_time),
    terminated=_record(
        exitCode=_I32, signal=_I32, reason=_text, message=_text, startedAt=_time, finishedAt=_time, containerID=_text
    ),
)
_STATUS_OF_CONTAINER = _record(
    ("name",),
    name=_NAME, ready=_flag, started=_flag, restartCount=_I32, image=_text, imageID=_text, containerID=_text,
    state=_STATE, lastState=_STATE,
)  # fmt: skip
_CONTAINER_SPEC = _record(
    ("name",),
    name=_NAME, image=_text, imagePullPolicy=_text, command=_list("command", _text), args=_list("args", _text),
    workingDir=_text, stdin=_flag, stdinOnce=_flag, tty=_flag, restartPolicy=_text, targetContainerName=_text,
    ports=_list(
        "ports", _record(name=_text, containerPort=_I32, hostPort=_I32, hostIP=_text, protocol=_text)
    ),
    resources=_record(limits=_QUANTITIES, requests=_QUANTITIES),
)  # fmt: skip
_POD = _record(
    metadata=_record(
        name=_text, namespace=_text, uid=_text, creationTimestamp=_time, deletionTimestamp=_time,
        deletionGracePeriodSeconds=_I64,
        labels=_map("labels", _LABEL_NAME, _matching(_LABEL_VALUE)),
        annotations=_annotations,
        ownerReferences=_list(
            "ownerReferences",
            _record(
                ("apiVersion", "kind", "name", "uid"),
                apiVersion=_text, kind=_text, name=_text, uid=_text, controller=_flag, blockOwnerDeletion=_flag,
            ),
        ),
    ),
    spec=_record(
        hostNetwork=_flag, hostPID=_flag, hostIPC=_flag, restartPolicy=_text, serviceAccountName=_text,
        priority=_I32, priorityClassName=_text, runtimeClassName=_text, dnsPolicy=_text, schedulerName=_text,
        hostname=_text, subdomain=_text, terminationGracePeriodSeconds=_I64,
        containers=_list("containers", _CONTAINER_SPEC),
        initContainers=_list("initContainers", _CONTAINER_SPEC),
        ephemeralContainers=_list("ephemeralContainers", _CONTAINER_SPEC),
    ),
    status=_record(
        phase=_text, reason=_text, message=_text, hostIP=_text, podIP=_text, qosClass=_text, startTime=_time,
        nominatedNodeName=_text,
        hostIPs=_list("hostIPs", _ADDRESSES), podIPs=_list("podIPs", _ADDRESSES),
        conditions=_list(
            "conditions",
            _record(
                ("type", "status"),
                type=_text, status=_text, reason=_text, message=_text, lastProbeTime=_time, lastTransitionTime=_time,
            ),
        ),
        containerStatuses=_list("containerStatuses", _STATUS_OF_CONTAINER),
        initContainerStatuses=_list("initContainerStatuses", _STATUS_OF_CONTAINER),
        ephemeralContainerStatuses=_list("ephemeralContainerStatuses", _STATUS_OF_CONTAINER),
    ),
)  # fmt: skip
NAMES = frozenset(_names)
"""The names of all fields of a pod that is shown: they are in memory once."""
