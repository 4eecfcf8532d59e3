"""Parses the paths of the API: what a request is about, before anything is looked up."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloud_server.frontends.fleet.resources import Resource, find
from tunnel.aio.http.http1 import Request
from tunnel.kubeapi.list_options import Query
from tunnel.kubeapi.status import ApiError, about, no_such_path

_WRITE_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:]{0,251}[A-Za-z0-9])?")
"""A loose pattern of names: those that no object can have end in 404, but what could change the meaning of a path ends
here.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """The verb of a request, and the resource or object that it is about."""

    resource: Resource
    verb: str
    namespace: str
    """The namespace; empty for all namespaces and for cluster-wide resources."""
    name: str
    """The name of the object; empty for the whole collection."""
    query: Query

    @property
    def base_resource(self) -> str:
        """Returns `pods` for `pods/exec`; for a resource itself, its own name."""
        return self.resource.name.partition("/")[0]


def parse(request: Request) -> ResourceRequest | None:
    """Returns what a request is about; None when its path is not one of a resource (discovery and the like).

    Raises:
        ApiError: 404, the path names no resource of this API; 405, the method or the part of a resource cannot be used.
    """
    parts = request.path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 or not all(_NAME.fullmatch(part) for part in (*rest, *filter(None, [namespace]))):
        raise no_such_path()
    name = rest[1] if len(rest) > 1 else ""
    resource = find(group, version, "/".join([rest[0], *rest[2:]]))
    if resource is None:
        raise _not_offered(request.method, find(group, version, rest[0]), rest)
    if namespace and not resource.namespaced:
        raise no_such_path()
    query = Query(request.query)
    verb = _verb(request.method, bool(name), query)
    return ResourceRequest(resource=resource, verb=verb, namespace=namespace, name=name, query=query)


def _not_offered(method: str, parent: Resource | None, rest: list[str]) -> ApiError:
    """Returns the error for a resource that does not exist. A write to a part of a resource that exists has a reason of
    its own.

    `kubectl debug` writes `pods/ephemeralcontainers`, `kubectl drain` `pods/eviction`: told that these were not found,
    kubectl guesses at what the cluster may lack.
    """
    if parent is None or method not in _WRITE_METHODS or len(rest) < 3:
        return no_such_path()
    text = f"the server does not allow this on {parent.name}/{rest[2]}: {parent.origin}"
    return ApiError(405, text, details=about(parent.group, parent.name, rest[1]))


def _verb(method: str, named: bool, query: Query) -> str:
    if method in ("GET", "HEAD"):
        if query.flag("watch"):
            return "watch"
        return "get" if named else "list"
    verb = _WRITE_METHODS.get(method)
    if verb is None:
        raise ApiError(405, f"the method {method} is not spoken here", details={})
    return "deletecollection" if verb == "delete" and not named else verb
