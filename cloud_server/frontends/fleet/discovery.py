"""Makes the discovery documents: `/version`, and `/api` and `/apis` in their legacy and aggregated forms."""

from __future__ import annotations

import platform
import re

from cloud_server.frontends.fleet.resources import RESOURCES, Resource, groups
from tunnel.aio.process.version import VERSION
from tunnel.kubeapi.status import Json, no_such_path

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
SPOKEN_MINORS = range(28, 100)
"""The minors of Kubernetes 1.x whose clients need nothing that the API subset served here lacks."""
DEFAULT_MINOR = 37

OPENAPI_V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""The type of `/openapi/v2`, an empty document: without one, `kubectl create` blames its own validation. What there is
to say is in `/openapi/v3`, which every kubectl that is spoken with here reads first.
"""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPILER = f"python{platform.python_version()}"
_PLATFORM = f"linux/{_MACHINES.get(platform.machine(), platform.machine())}"


def version_document(user_agent: str | None) -> Json:
    """Returns `/version`. It claims the client's own minor version, because the subset served is the same in all of
    them.

    Otherwise kubectl prints a warning about version skew, which would tell its user nothing.
    """
    match = re.search(r"/v1\.(\d{1,3})\.", user_agent or "")
    minor = int(match[1]) if match and int(match[1]) in SPOKEN_MINORS else DEFAULT_MINOR
    return {
        "major": "1",
        "minor": str(minor),
        "gitVersion": f"v1.{minor}.0+longline-{VERSION}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": _COMPILER,
        "platform": _PLATFORM,
    }


def api_versions() -> Json:
    """Returns `/api` in its legacy form."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_group_list() -> Json:
    """Returns `/apis` in its legacy form."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups()]}


def api_group(name: str) -> Json:
    """Returns `/apis/<group>`.

    Raises:
        ApiError: there is no such group.
    """
    if name not in groups():
        raise no_such_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def api_resource_list(group: str, version: str) -> Json:
    """Returns `/api/v1` or `/apis/<group>/<version>`.

    Raises:
        ApiError: there is no such version.
    """
    found = [resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)]
    if not found:
        raise no_such_path()
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].group_version,
        "resources": [_legacy(resource) for resource in found],
    }


def aggregated(core: bool, version: str) -> Json:
    """Returns `/api` (core) or `/apis` in its aggregated form, `v2` or `v2beta1`."""
    names = [""] if core else groups()
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_aggregated_group(name) for name in names],
    }


# Internal


def _group(name: str) -> Json:
    versions = [{"groupVersion": f"{name}/{item}", "version": item} for item in _versions(name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _versions(group: str) -> list[str]:
    return list(dict.fromkeys(resource.version for resource in RESOURCES if resource.group == group))


def _legacy(resource: Resource) -> Json:
    entry: Json = {
        "name": resource.name,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def _aggregated_group(group: str) -> Json:
    return {
        "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
        "versions": [
            {
                "version": version,
                "freshness": "Current",
                "resources": [
                    _aggregated_resource(resource)
                    for resource in RESOURCES
                    if (resource.group, resource.version) == (group, version) and not resource.subresource
                ],
            }
            for version in _versions(group)
        ],
    }


def _aggregated_resource(resource: Resource) -> Json:
    entry: Json = {
        "resource": resource.name,
        "responseKind": _group_version_kind(resource),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subresources = [
        {"subresource": item.subresource, "responseKind": _group_version_kind(item), "verbs": list(item.verbs)}
        for item in RESOURCES
        if item.group == resource.group and item.name.startswith(f"{resource.name}/")
    ]
    if subresources:
        entry["subresources"] = subresources
    return entry


def _group_version_kind(resource: Resource) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}
