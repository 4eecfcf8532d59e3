"""Reads the fields of kept objects that field selectors name, in both encodings and without a schema. It is pure."""

from __future__ import annotations

from tunnel.kubeapi import wire_scan
from tunnel.kubeapi.codecs import PROTOBUF, Codec
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.selectors import field_value

_NUMBERS = {
    ("services", "spec.clusterIP"): (2, 3),
    ("services", "spec.type"): (2, 4),
    ("namespaces", "status.phase"): (3, 1),
}
"""By resource and field, where it stands in protobuf (k8s.io/api v0.34 `core/v1/generated.proto`). These and the two of
every object are all that an API server selects by (kubernetes v1.34 `pkg/apis/core/v1/conversion.go`), of the resources
that are named here.
"""


def is_known(resource: str, field: str) -> bool:
    """Returns whether `value_of` knows a field of a resource."""
    return field in ("metadata.name", "metadata.namespace") or (resource, field) in _NUMBERS


def value_of(codec: Codec, resource: str, item: Item, field: str) -> str:
    """Returns the value of a field, which must be known, as a field selector sees it: empty where it is absent.

    Raises:
        ValueError: the object cannot be read.
    """
    if field == "metadata.name":
        return item.metadata.name
    if field == "metadata.namespace":
        return item.metadata.namespace
    if codec is PROTOBUF:
        return wire_scan.text_at(item.raw, *_NUMBERS[resource, field])
    parsed = decode(item.raw)
    return field_value(parsed, field) if isinstance(parsed, dict) else ""
