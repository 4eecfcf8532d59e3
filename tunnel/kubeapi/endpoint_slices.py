"""Puts other addresses and conditions into EndpointSlices, in either encoding, and leaves all else as it came.

The fields are those of `discovery/v1` (k8s.io/api v0.34): a slice has its endpoints as field 2 and its type of
addresses as field 4; an endpoint its addresses as 1, its conditions as 2, and the pod that it is as 4, with its uid as
field 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunnel.kubeapi import wire_scan
from tunnel.kubeapi.codecs import JSON, Codec

_ENDPOINTS, _TYPE = 2, 4
_ADDRESSES, _CONDITIONS, _TARGET = 1, 2, 4
_UID = 4
_READY, _SERVING, _TERMINATING = 1, 2, 3
_SPEC, _PUBLISHES = 2, 13
"""Of a Service, and of its spec: `publishNotReadyAddresses` (k8s.io/api v0.34 `core/v1`)."""


class LocalPod(NamedTuple):
    """What is known of a pod on its own node."""

    addresses: tuple[str, ...]
    is_ready: bool
    overrides: bool
    """Whether its readiness counts here also where the slice has its address already."""


def with_local_pods(
    raw: bytes, codec: Codec, pods: Mapping[str, LocalPod], *, publishes_unready: bool = False
) -> bytes:
    """Returns a slice in which the endpoints of these pods are as they are on the node; the same bytes where nothing
    differs.

    Args:
        raw: the slice.
        codec: its encoding.
        pods: by uid.
        publishes_unready: whether the Service counts pods as ready that are not; they are not serving then.

    Raises:
        ValueError: it is no slice.
    """
    return (_json if codec is JSON else _protobuf)(raw, pods, publishes_unready)


def publishes_unready(raw: bytes, codec: Codec) -> bool:
    """Returns whether a Service counts pods as ready that are not.

    Raises:
        ValueError: it is no Service.
    """
    if codec is JSON:
        return _members(_read(raw), "spec").get("publishNotReadyAddresses") is True
    for number, _, start, end in wire_scan.fields(raw):
        if number == _SPEC:
            return bool(wire_scan.numbers(raw[start:end]).get(_PUBLISHES))
    return False


# Internal


def _addresses(pod: LocalPod, address_type: str) -> list[str]:
    """Returns the addresses of a pod that a slice of one type has: at most one."""
    is_v6 = address_type == "IPv6"
    return [address for address in pod.addresses if (":" in address) == is_v6][:1]


def _read(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("no object")  # noqa: TRY004 - what came is wrong, and not its caller
    return content


def _json(raw: bytes, pods: Mapping[str, LocalPod], publishes_unready: bool) -> bytes:
    content = _read(raw)
    changed = False
    endpoints = content.get("endpoints") or []
    for endpoint in endpoints if isinstance(endpoints, list) else ():
        target, conditions = (_members(endpoint, name) for name in ("targetRef", "conditions"))
        pod = pods.get(str(target.get("uid", "")))
        if pod is None or conditions.get("terminating"):
            continue
        ready = pod.is_ready or publishes_unready
        was_ready = conditions.get("ready", True)
        before = endpoint.get("addresses") or []
        new = _changed(pod, content.get("addressType", ""), before, changes=ready != was_ready)
        if new is not None:
            endpoint["addresses"] = new
            endpoint["conditions"] = {**conditions, "ready": ready, "serving": pod.is_ready}
            changed = True
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() if changed else raw


def _members(endpoint: object, name: str) -> dict[str, Any]:
    """Returns a part of an endpoint; empty where there is none."""
    part = endpoint.get(name) if isinstance(endpoint, dict) else None
    return part if isinstance(part, dict) else {}


def _changed(pod: LocalPod, address_type: str, addresses: list[str], *, changes: bool) -> list[str] | None:
    """Returns the addresses that an endpoint gets, together with the pod's readiness; None when it stays as it is.

    `changes`: whether the pod's readiness is another than the endpoint's.
    """
    wanted = _addresses(pod, address_type)
    if not wanted and (pod.addresses or pod.is_ready):
        return None
    if wanted and wanted != addresses:
        return wanted
    return addresses if changes and pod.overrides else None


def _protobuf(raw: bytes, pods: Mapping[str, LocalPod], publishes_unready: bool) -> bytes:
    address_type = wire_scan.text_at(raw, _TYPE)
    parts, at = [], 0
    for number, head, start, end in wire_scan.fields(raw):
        if number != _ENDPOINTS:
            continue
        endpoint = _endpoint(raw[start:end], address_type, pods, publishes_unready)
        if endpoint is not None:
            parts += [raw[at:head], wire_scan.length_delimited(_ENDPOINTS, endpoint)]
            at = end
    return b"".join((*parts, raw[at:])) if parts else raw


def _endpoint(raw: bytes, address_type: str, pods: Mapping[str, LocalPod], publishes_unready: bool) -> bytes | None:
    """Returns an endpoint as it is on the node; None when that is as it was."""
    pod = pods.get(wire_scan.text_at(raw, _TARGET, _UID))
    if pod is None:
        return None
    addresses: list[str] = []
    conditions, rest = b"", b""
    for number, head, start, end in wire_scan.fields(raw):
        if number == _ADDRESSES:
            addresses.append(raw[start:end].decode())
        elif number == _CONDITIONS:
            conditions = raw[start:end]
        else:
            rest += raw[head:end]
    states = wire_scan.numbers(conditions)
    if states.get(_TERMINATING):
        return None
    ready = pod.is_ready or publishes_unready
    new = _changed(pod, address_type, addresses, changes=ready != bool(states.get(_READY, 1)))
    if new is None:
        return None
    made = bytes((_READY << 3, ready, _SERVING << 3, pod.is_ready, _TERMINATING << 3, 0))
    texts = b"".join(wire_scan.length_delimited(_ADDRESSES, address.encode()) for address in new)
    return texts + wire_scan.length_delimited(_CONDITIONS, made) + rest
