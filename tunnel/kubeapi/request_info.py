"""Finds out what a request to an API server is about, as the API server itself does for its authorizers.

The rules are those of apiserver v0.34 `pkg/endpoints/request/requestinfo.go`, so that what is decided here is decided
about what the API server will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunnel.kubeapi.selectors import parse_fields
from tunnel.kubeapi.status import ApiError

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_BY_PATH = ("proxy", "watch")
"""Verbs that very old clients put into the path, before the resource."""
_OF_NAMESPACES = ("status", "finalize")
"""The subresources of a namespace: what stands behind its name is else a resource in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """What a request is about. The fields of resources are empty for any other path."""

    verb: str
    """Such as `list` or `watch`; for what is no resource, the method in lower case."""
    path: str
    is_resource: bool = False
    group: str = ""
    """The API group; empty for the core group."""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    """The one object that it is about, also where a field selector names it; empty for any number of them."""
    subresource: str = ""
    label_selector: str = ""
    field_selector: str = ""

    def reading(self, name: str = "") -> RequestInfo:
        """Returns the request that reads the object which this one is about. `name`: where this one has none."""
        return replace(self, verb="get", subresource="", name=self.name or name)


def request_info(method: str, path: str, query: Sequence[tuple[str, str]]) -> RequestInfo:
    """Returns what a request is about.

    Args:
        method: in upper case.
        path: decoded, without the query.
        query: the decoded parameters, in their order.
    """
    other = RequestInfo(verb=method.lower(), path=path)
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return other
    prefix, *parts = parts
    group = ""
    if prefix == "apis":
        if len(parts) < 3:
            return other
        group, *parts = parts
    version, *parts = parts
    verb, by_path = _VERBS.get(method, ""), False
    if parts[0] in _BY_PATH:
        if len(parts) < 2:
            return other
        (verb, *parts), by_path = parts, True
    namespace, parts = _namespace(parts)
    resource, name, subresource = [*parts, "", ""][:3]
    if verb == "proxy":
        subresource = ""
    selectors = {} if by_path else {key: value for key, value in reversed(query) if key.endswith("Selector")}
    if not name and verb == "get":
        verb = "watch" if _is_true(query, "watch") else "list"
        name = _named(selectors.get("fieldSelector", ""))
    elif not name and verb == "delete":
        verb = "deletecollection"
    if verb not in ("list", "watch", "deletecollection"):
        selectors = {}
    return RequestInfo(
        verb=verb,
        path=path,
        is_resource=True,
        group=group,
        version=version,
        namespace=namespace,
        resource=resource,
        name=name,
        subresource=subresource,
        label_selector=selectors.get("labelSelector", ""),
        field_selector=selectors.get("fieldSelector", ""),
    )


def _namespace(parts: list[str]) -> tuple[str, list[str]]:
    """Returns the namespace, and the parts from the resource on."""
    if parts[0] != "namespaces" or len(parts) < 2:
        return "", parts
    inside = len(parts) > 2 and parts[2] not in _OF_NAMESPACES
    return parts[1], parts[2:] if inside else parts


def _is_true(query: Sequence[tuple[str, str]], wanted: str) -> bool:
    """Returns whether a parameter is set, as Kubernetes reads a boolean: by its first value, of which an empty one is
    true.
    """
    value = next((value for key, value in query if key == wanted), "0")
    return value.lower() not in ("0", "false")


def _named(field_selector: str) -> str:
    """Returns the name that a field selector demands; empty when it demands none, or cannot be read."""
    try:
        conditions = parse_fields("", field_selector)  # of any fields: the API server knows which there are
    except ApiError:
        return ""
    name = next((one.value for one in conditions if one.field == "metadata.name" and one.equal), "")
    return "" if name in (".", "..") or "/" in name or "%" in name else name
