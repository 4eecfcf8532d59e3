"""Makes `/openapi/v3`: the table of resources and its schemas as OpenAPI documents, one for each group and version.

They are made when asked for: a server that nobody runs `kubectl explain` against holds none of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cloud_server.frontends.fleet.resources import METRICS_GROUP, RESOURCES, Resource
from cloud_server.frontends.fleet.schemas import META, SCHEMAS, Fields
from tunnel.aio.process.version import VERSION
from tunnel.kubeapi.encoding import encode
from tunnel.kubeapi.status import Json, no_such_path

_SIMPLE: dict[str, Json] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "any": {"type": "object"},
}
_REF = "#/components/schemas/"
_ANY_OBJECT: Fields = {
    "apiVersion": ("string", "Group and version of this kind of object."),
    "kind": ("string", "The kind of this object."),
    "metadata": (META + "ObjectMeta", "Its name, and what is known of it as an object."),
}


def index() -> Json:
    """Returns `/openapi/v3`, which says where the documents are; a document that changed has another URL."""
    return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={_hash(name)}"} for name in _names()}}


def document(name: str) -> Json:
    """Returns `/openapi/v3/<name>`, where the name is such as `api/v1`.

    Raises:
        ApiError: there is no such group and version.
    """
    resources = [resource for resource in RESOURCES if _name(resource) == name]
    if not resources:
        raise no_such_path()
    schemas = {schema: _schema(*SCHEMAS[schema]) for schema in SCHEMAS}
    for resource in resources:
        if not resource.subresource:
            empty = _schema(f"{resource.kind}: {resource.origin}.", _ANY_OBJECT)
            schema = schemas.setdefault(_schema_name(resource), empty)
            schema["x-kubernetes-group-version-kind"] = [_group_version_kind(resource)]
    paths: Json = {}
    for resource in resources:
        paths |= _paths(resource)
    used = _used(schemas, {_schema_name(resource) for resource in resources})
    return {
        "openapi": "3.0.0",
        "info": {"title": "Longline fleet API", "version": VERSION},
        "paths": paths,
        "components": {"schemas": {name: schemas[name] for name in sorted(used)}},
    }


# Internal


def _name(resource: Resource) -> str:
    return f"apis/{resource.group_version}" if resource.group else f"api/{resource.version}"


def _names() -> list[str]:
    return list(dict.fromkeys(_name(resource) for resource in RESOURCES))


def _hash(name: str) -> str:
    return hashlib.sha256(encode(document(name))).hexdigest()[:32].upper()


def _schema_name(resource: Resource) -> str:
    if resource.group == METRICS_GROUP:
        return f"io.k8s.metrics.pkg.apis.metrics.{resource.version}.{resource.kind}"
    group = (resource.group or "core").removesuffix(".k8s.io")
    return f"io.k8s.api.{group}.{resource.version}.{resource.kind}"


def _group_version_kind(resource: Resource) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _schema(description: str, fields: Fields) -> Json:
    properties = {name: {"description": text, **_type(kind)} for name, (kind, text) in fields.items()}
    return {"description": description, "type": "object", "properties": properties}


def _type(kind: str) -> Json:
    if kind.startswith("["):
        return {"type": "array", "items": _type(kind[1:-1])}
    # A reference has no room for a description beside it but within `allOf`.
    return dict(_SIMPLE[kind]) if kind in _SIMPLE else {"allOf": [{"$ref": _REF + kind}]}


def _used(schemas: Json, wanted: set[str]) -> set[str]:
    """Returns the names of these schemas and of all that they refer to."""
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in schemas and name not in found:
            found.add(name)
            wanted |= set(_references(schemas[name]))
    return found


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value.removeprefix(_REF)
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _paths(resource: Resource) -> Json:
    base, _, subresource = resource.name.partition("/")
    prefix = f"/{_name(resource)}"
    spaced = f"{prefix}/namespaces/{{namespace}}/{base}" if resource.namespaced else f"{prefix}/{base}"
    if subresource:
        verbs = {"get": "get", "create": "post"}
        return {f"{spaced}/{{name}}/{subresource}": _operations(resource, verbs)}
    paths = {
        spaced: _operations(resource, {"list": "get", "create": "post"}),
        f"{spaced}/{{name}}": _operations(resource, {"get": "get"}),
    }
    if resource.namespaced and "list" in resource.verbs:
        paths[f"{prefix}/{base}"] = _operations(resource, {"list": "get"})
    return {path: operations for path, operations in paths.items() if operations}


def _operations(resource: Resource, methods: dict[str, str]) -> Json:
    schema = {"$ref": _REF + _schema_name(resource)}
    answer = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    plain = {"description": "OK"}
    return {
        method: {
            "description": f"{verb} {resource.name}",
            "responses": {"200": answer if verb == "get" and not resource.subresource else plain},
            "x-kubernetes-action": {"create": "post"}.get(verb, verb),
            "x-kubernetes-group-version-kind": _group_version_kind(resource),
        }
        for verb, method in methods.items()
        if verb in resource.verbs
    }
