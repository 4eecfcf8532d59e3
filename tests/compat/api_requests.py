"""The requests that are put to a real API server and to the fleet API alike, so that their answers can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON = {"content-type": "application/json"}
PATCH = {"content-type": "application/strategic-merge-patch+json"}
PROTOBUF_ONLY = {"accept": "application/vnd.kubernetes.protobuf"}
TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    method: str = "GET"
    path: str
    """`{node}` and `{pod}` are the names of some that exist."""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    stranger: bool = False
    """Without credentials."""


def _review(group: str, kind: str, **spec: Any) -> Ask:
    body = json.dumps({"kind": kind, "apiVersion": f"{group}/v1", "spec": spec})
    return Ask(method="POST", path=f"/apis/{group}/v1/{kind.lower()}s", headers=JSON, body=body)


_AUTHORIZATION = "authorization.k8s.io"
_GET_PODS = {"verb": "get", "resource": "pods", "namespace": "default"}

OBJECTS = {
    "node": Ask(path="/api/v1/nodes/{node}"),
    "pod": Ask(path="/api/v1/namespaces/default/pods/{pod}"),
    "namespace": Ask(path="/api/v1/namespaces/default"),
    "lease": Ask(path="/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"),
    "nodes": Ask(path="/api/v1/nodes"),
    "page of nodes": Ask(path="/api/v1/nodes?limit=1"),
    "pods": Ask(path="/api/v1/namespaces/default/pods"),
    "table of nodes": Ask(path="/api/v1/nodes", headers=TABLE),
    "table of pods": Ask(path="/api/v1/namespaces/default/pods", headers=TABLE),
    "versions": Ask(path="/api"),
    "groups": Ask(path="/apis"),
    "resources": Ask(path="/api/v1"),
    "group": Ask(path="/apis/coordination.k8s.io"),
    "version": Ask(path="/version"),
    "openapi": Ask(path="/openapi/v3"),
    "whoami": _review("authentication.k8s.io", "SelfSubjectReview"),
    "can-i": _review(_AUTHORIZATION, "SelfSubjectAccessReview", resourceAttributes=_GET_PODS),
    "can-i of another": _review(_AUTHORIZATION, "SubjectAccessReview", user="ann", resourceAttributes=_GET_PODS),
    "can-i --list": _review(_AUTHORIZATION, "SelfSubjectRulesReview", namespace="default"),
}
"""Answered with objects; of these the fields and types are compared."""

_PODS = "/api/v1/namespaces/default/pods"
_NEW_POD = json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": {"containers": []}})

_CAN_I = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

REFUSALS = {
    "pod that is not there": Ask(path=f"{_PODS}/nope"),
    "lease that is not there": Ask(path="/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/nope"),
    "log of a pod that is not there": Ask(path=f"{_PODS}/nope/log"),
    "exec in a pod that is not there": Ask(path=f"{_PODS}/nope/exec?command=ls&stdout=1"),
    "log of a container that is not there": Ask(path=f"{_PODS}/{{pod}}/log?container=nope"),
    "exec that asks for no upgrade": Ask(path=f"{_PODS}/{{pod}}/exec?command=ls&stdout=1"),
    "bad label selector": Ask(path="/api/v1/nodes?labelSelector=a%20b%20c"),
    "bad field selector": Ask(path="/api/v1/nodes?fieldSelector=spec.bogus%3D1"),
    "bad continue token": Ask(path="/api/v1/nodes?limit=1&continue=x"),
    "version of the future": Ask(path="/api/v1/nodes?resourceVersion=99999999999999999&timeoutSeconds=1"),
    "match without a version": Ask(path="/api/v1/nodes?resourceVersionMatch=Exact"),
    "match that is none": Ask(path="/api/v1/nodes?resourceVersion=1&resourceVersionMatch=Perhaps"),
    "initial events of a list": Ask(path="/api/v1/nodes?sendInitialEvents=true"),
    "initial events without a match": Ask(path="/api/v1/nodes?watch=1&sendInitialEvents=true"),
    "nothing that is accepted": Ask(path="/api/v1/nodes", headers={"accept": "text/plain"}),
    "body of no known type": Ask(method="POST", path=_CAN_I, headers={"content-type": "text/plain"}, body="x"),
    "review that is broken": Ask(method="POST", path=_CAN_I, headers=JSON, body="{"),
    "review of nothing": _review(_AUTHORIZATION, "SelfSubjectAccessReview"),
    "write to a subresource that is read only": Ask(method="POST", path=f"{_PODS}/{{pod}}/log", headers=JSON),
    "write to the collection": Ask(method="PUT", path="/api/v1/nodes", headers=JSON, body="{}"),
    "stranger": Ask(path="/api/v1/nodes", stranger=True, headers={"authorization": "Bearer guessed"}),
}
"""Answered with a Status; of these the fields, types, code and reason are compared."""

WRITES = {
    "create": Ask(method="POST", path=_PODS, headers=JSON, body=_NEW_POD),
    "update": Ask(method="PUT", path=f"{_PODS}/{{pod}}", headers=JSON, body=_NEW_POD),
    "patch": Ask(method="PATCH", path=f"{_PODS}/{{pod}}", headers=PATCH, body="{}"),
    "delete": Ask(method="DELETE", path=f"{_PODS}/{{pod}}"),
    "delete all": Ask(method="DELETE", path=_PODS),
    "debug": Ask(method="PATCH", path=f"{_PODS}/{{pod}}/ephemeralcontainers", headers=PATCH, body="{}"),
    "evict": Ask(method="POST", path=f"{_PODS}/{{pod}}/eviction", headers=JSON, body="{}"),
    "cordon": Ask(method="PATCH", path="/api/v1/nodes/{node}", headers=PATCH, body="{}"),
}
"""What a real API server does and the fleet API does not: refused with 405 and the fields of any 405."""
