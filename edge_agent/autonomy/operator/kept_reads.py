"""What is kept on the node, as an API to read: lists, single objects, and which resources there are.

It is for people. All that is kept of a resource is shown together, whoever asked for it, so that a list is what the
node knows and not what the cluster has. Objects in JSON (the node, its pods) can be shown as a whole; of others, which
are kept in protobuf, there is a Table with name and age.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from edge_agent.autonomy.answering.answers import away
from edge_agent.autonomy.kept.feeds import Feeds
from tunnel.kubeapi.codecs import JSON
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.negotiation import wants_table
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.selectors import parse
from tunnel.kubeapi.status import ApiError, Json, not_found
from tunnel.kubeapi.tables import table
from tunnel.kubeapi.wire_scan import created_of


class Resource(NamedTuple):
    """A resource that a node's components ask for."""

    group: str
    version: str
    name: str
    kind: str
    short: tuple[str, ...] = ()
    is_namespaced: bool = True


RESOURCES = (
    Resource("", "v1", "pods", "Pod", ("po",)),
    Resource("", "v1", "nodes", "Node", ("no",), is_namespaced=False),
    Resource("", "v1", "services", "Service", ("svc",)),
    Resource("", "v1", "configmaps", "ConfigMap", ("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "namespaces", "Namespace", ("ns",), is_namespaced=False),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", ("sa",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", ("pvc",)),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", ("pv",), is_namespaced=False),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", is_namespaced=False),
    Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", is_namespaced=False),
    Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", is_namespaced=False),
    Resource("storage.k8s.io", "v1", "csinodes", "CSINode", is_namespaced=False),
    Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", is_namespaced=False),
)
_BY_NAME = {(one.group, one.version, one.name): one for one in RESOURCES}
_SUBRESOURCES = {"log": ["get"], "exec": ["create", "get"]}
"""Of pods: what may be asked of them beside reading."""


def discovery(path: str) -> Json | None:
    """Returns what a path tells about the API; None when it is none of those that do."""
    match path.strip("/").split("/"):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = sorted({(one.group, one.version) for one in RESOURCES if one.group})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*each) for each in groups]}
        case ["api", version]:
            return _resources("", version)
        case ["apis", group, version]:
            return _resources(group, version)
    return None


def answer(feeds: Feeds, info: RequestInfo, accept: str | None, include: str) -> Json:
    """Returns the answer to a GET of one object or a list.

    Args:
        feeds: what is kept.
        info: what the request is about.
        accept: its `Accept` header.
        include: how much of an object a row of a Table carries.

    Raises:
        ApiError: the answer is an error.
    """
    resource = _BY_NAME.get((info.group, info.version, info.resource))
    known = _known(feeds, info) if resource is not None else {}
    if resource is None or not (known or _is_whole(feeds, info)):
        raise away(f"nothing is kept on this node of {info.resource}")
    found = list(_selected(known, info))
    if info.verb == "get" and not found:
        raise not_found(info.group, info.resource, info.name)
    if wants_table(accept):
        printed = info.resource if all(one.is_whole for one in found) else ""
        shown = [one.shown for one in found]
        return table(printed, shown, {"resourceVersion": ""}, datetime.now(UTC), include, header=True)
    if not all(one.is_whole for one in found):
        raise ApiError(406, f"of {info.resource} the node can show names and ages only, as `kubectl get` prints them")
    api_version = f"{info.group}/{info.version}" if info.group else info.version
    typed = [{**one.shown, "kind": resource.kind, "apiVersion": api_version} for one in found]
    if info.verb == "get":
        return typed[0]
    listed = {"kind": f"{resource.kind}List", "apiVersion": api_version, "metadata": {"resourceVersion": ""}}
    return {**listed, "items": typed}


def pod(feeds: Feeds, namespace: str, name: str) -> Json | None:
    """Returns a pod that is kept; None when it is not."""
    info = RequestInfo(verb="get", path="", is_resource=True, version="v1", namespace=namespace, resource="pods")
    found = _known(feeds, info).get((namespace, name))
    return found.shown if found is not None and found.is_whole else None


# Internal


class _Known(NamedTuple):
    """One object that is kept."""

    item: Item
    is_whole: bool
    """Whether all of it can be shown."""

    @property
    def shown(self) -> Json:
        """Returns what can be shown of it."""
        if self.is_whole:
            parsed = decode(self.item.raw)
            return parsed if isinstance(parsed, dict) else {}
        metadata = self.item.metadata
        named = {"name": metadata.name, "uid": metadata.uid, "resourceVersion": metadata.version}
        named |= {"namespace": metadata.namespace} if metadata.namespace else {}
        seconds = created_of(self.item.raw)
        created = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds else None
        return {"metadata": {**named, "labels": metadata.labels, "creationTimestamp": created}}


def _known(feeds: Feeds, info: RequestInfo) -> dict[tuple[str, str], _Known]:
    """Returns the objects of a resource in their order. Of those that are kept twice it is the one that says more, or
    is newer.
    """
    known: dict[tuple[str, str], _Known] = {}
    for scope, item in feeds.kept_of(info.group, info.version, info.resource):
        one = _Known(item, scope.encoding == JSON.name)
        before = known.get(item.key)
        if before is None or (before.is_whole, before.item.version) < (one.is_whole, item.version):
            known[item.key] = one
    if any(one.is_whole for one in known.values()):  # the node's own, of which all can be said
        known = {key: one for key, one in known.items() if one.is_whole}
    return dict(sorted(known.items()))


def _is_whole(feeds: Feeds, info: RequestInfo) -> bool:
    """Returns whether a list of the resource is kept, which then is empty."""
    wanted = (info.group, info.version, info.resource)
    return any(
        (feed.scope.group, feed.scope.version, feed.scope.resource) == wanted and feed.is_complete for feed in feeds.all
    )


def _selected(known: dict[tuple[str, str], _Known], info: RequestInfo) -> Iterator[_Known]:
    """Yields the objects that a request is about.

    Raises:
        ApiError: its selectors cannot be read, or select by what cannot be seen here.
    """
    selector = parse(info.resource, info.label_selector, info.field_selector)
    hidden = [one.field for one in selector.fields if not one.field.startswith("metadata.")]
    if hidden and not all(one.is_whole for one in known.values()):
        raise ApiError(400, f"of {info.resource} the node cannot select by {hidden[0]}")
    for (namespace, name), one in known.items():
        if info.namespace not in ("", namespace) or (info.verb == "get" and info.name != name):
            continue
        if not (selector.labels or selector.fields) or selector.matches(one.shown):
            yield one


def _group(group: str, version: str) -> Json:
    preferred = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


def _resources(group: str, version: str) -> Json | None:
    found = [one for one in RESOURCES if (one.group, one.version) == (group, version)]
    if not found:
        return None
    listed = [
        {"name": one.name, "singularName": one.kind.lower(), "namespaced": one.is_namespaced, "kind": one.kind,
         "verbs": ["get", "list"], "shortNames": list(one.short)}
        for one in found
    ]  # fmt: skip
    if not group:
        listed += [
            {"name": f"pods/{name}", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": verbs}
            for name, verbs in _SUBRESOURCES.items()
        ]
    named = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": named, "resources": listed}
