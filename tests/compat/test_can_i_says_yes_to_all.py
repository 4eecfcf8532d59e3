"""`kubectl auth can-i '*' '*'` said yes: what it says is held against what the API does, by verb and resource."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud_server.frontends.fleet.actions import PATHS
from cloud_server.frontends.fleet.resources import RESOURCES, Resource
from tests.compat.fleets import RealFleet, compat_fleet
from tests.support.fleet import Fleet
from tests.support.fleet_client import ask

VERBS = {
    "get": ("GET", "/{name}", ""),
    "list": ("GET", "", ""),
    "watch": ("GET", "", "?watch=1&resourceVersion=1"),
    "create": ("POST", "", ""),
    "update": ("PUT", "/{name}", ""),
    "patch": ("PATCH", "/{name}", ""),
    "delete": ("DELETE", "/{name}", ""),
    "deletecollection": ("DELETE", "", ""),
}
"""By verb: the method, what follows the path of the collection, and the query: a watch of the far past ends at once."""
UNKNOWN = (("", "secrets"), ("apps", "widgets"), ("example.com", "nodes"), ("", "pods/eviction"), ("", "nodes/proxy"))
REVIEWS = "/apis/authorization.k8s.io/v1"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with compat_fleet(tmp_path) as running:
        yield running


async def _may(fleet: Fleet, kind: str = "SelfSubjectAccessReview", **spec: Any) -> bool:
    body = json.dumps({"kind": kind, "apiVersion": "authorization.k8s.io/v1", "spec": spec})
    code, review = await ask(
        fleet, f"{REVIEWS}/{kind.lower()}s", method="POST", headers={"content-type": "application/json"}, body=body
    )
    assert code == 201, review
    allowed: bool = review["status"]["allowed"]
    assert review["status"]["reason"]
    return allowed


def _attributes(group: str, name: str, verb: str) -> dict[str, str]:
    resource, _, subresource = name.partition("/")
    return {"group": group, "resource": resource, "subresource": subresource, "verb": verb, "namespace": "default"}


def _path(resource: Resource, verb: str) -> str:
    base, _, subresource = resource.name.partition("/")
    prefix = f"/apis/{resource.group_version}" if resource.group else f"/api/{resource.version}"
    space = "/namespaces/default" if resource.namespaced else ""
    if subresource:
        return f"{prefix}{space}/{base}/box-7/{subresource}"
    _, rest, query = VERBS[verb]
    return f"{prefix}{space}/{base}{rest.format(name='box-7')}{query}"


async def test_what_it_says_is_what_the_api_does(fleet: Fleet) -> None:
    wrong = []
    for resource in RESOURCES:
        for verb, (method, _, _) in VERBS.items():
            if resource.subresource and verb in ("list", "watch", "deletecollection"):
                continue  # there is no way to ask for that
            if resource.subresource and method == "DELETE" and verb != "delete":
                continue
            said = await _may(fleet, resourceAttributes=_attributes(resource.group, resource.name, verb))
            code, body = await ask(fleet, _path(resource, verb), method=method)
            # Allowed, it may still fail for its own reasons: no such object, an empty body.
            refused = code in (403, 405) or (code == 404 and "could not find the requested resource" in str(body))
            if said is refused:
                wrong.append((verb, resource.group, resource.name, said, code))
    assert wrong == []


async def test_what_is_not_there_may_not_be_used(fleet: Fleet) -> None:
    for group, name in UNKNOWN:
        for verb in ("get", "create"):
            assert not await _may(fleet, resourceAttributes=_attributes(group, name, verb))
    for group, name, verb in (("*", "*", "*"), ("", "pods", "*"), ("", "*", "get"), ("*", "pods", "get")):
        assert not await _may(fleet, resourceAttributes=_attributes(group, name, verb))
    assert not await _may(fleet, resourceAttributes=_attributes("", "userextras/scopes", "impersonate"))


async def test_paths_that_are_no_resources(fleet: Fleet) -> None:
    for path in (*(known for known in PATHS if "*" not in known), "/api/v1", "/apis/apps/v1", "/openapi/v3/api/v1"):
        assert await _may(fleet, nonResourceAttributes={"path": path, "verb": "get"}), path
        assert not await _may(fleet, nonResourceAttributes={"path": path, "verb": "post"}), path
        code, _ = await ask(fleet, path)
        assert (path, code) == (path, 200)
    for path in ("/metrics", "/logs/", "/", "*", "/debug/pprof"):
        assert not await _may(fleet, nonResourceAttributes={"path": path, "verb": "get"}), path


async def test_rights_of_others(fleet: Fleet) -> None:
    pods = _attributes("", "pods", "get")
    for kind in ("SubjectAccessReview", "LocalSubjectAccessReview"):
        spec = {"user": "bob", "resourceAttributes": pods}
        body = json.dumps({"kind": kind, "apiVersion": "authorization.k8s.io/v1", "spec": spec})
        space = "/namespaces/default" if kind.startswith("Local") else ""
        code, review = await ask(fleet, f"{REVIEWS}{space}/{kind.lower()}s", method="POST", body=body)
        assert (code, review["status"]["allowed"]) == (201, True)
    assert not await _may(fleet, "SubjectAccessReview", user="system:anonymous", resourceAttributes=pods)
    assert not await _may(fleet, "SubjectAccessReview", user="carl", resourceAttributes=pods)
    assert not await _may(fleet, "SubjectAccessReview", groups=["a"], resourceAttributes=pods)
    assert not await _may(fleet, "SubjectAccessReview", groups=["system:authenticated"], resourceAttributes=pods)


async def test_the_list_of_rights_is_that_of_the_answers(fleet: Fleet) -> None:
    body = json.dumps({"kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}})
    _, review = await ask(fleet, f"{REVIEWS}/selfsubjectrulesreviews", method="POST", body=body)
    listed = {
        (rule["apiGroups"][0], rule["resources"][0], verb)
        for rule in review["status"]["resourceRules"]
        for verb in rule["verbs"]
    }
    offered = {(item.group, item.name, verb) for item in RESOURCES for verb in item.verbs}
    assert listed == offered | {("", "users", "impersonate"), ("", "groups", "impersonate")}
    for group, name, verb in listed:
        assert await _may(fleet, resourceAttributes=_attributes(group, name, verb))


@pytest.mark.e2e
def test_kubectl_asks(boxes: RealFleet) -> None:
    for words, answer in {
        "* *": "no", "get pods": "yes", "create pods/exec": "yes", "get pods --subresource=log": "yes",
        "delete pods": "no", "get secrets": "no", "list deployments.apps": "yes", "create deployments.apps": "no",
        "get /version": "yes", "get /metrics": "no", "get nodes.metrics.k8s.io": "yes", "watch events": "yes",
    }.items():  # fmt: skip
        ran = boxes.run_kubectl("auth", "can-i", *words.split())
        assert (words, ran.stdout.split()[0].decode(), ran.returncode) == (words, answer, int(answer == "no"))
    listed = boxes.kubectl("auth", "can-i", "--list")
    assert "pods/exec" in listed
    assert "secrets" not in listed
    assert "admin" in boxes.kubectl("auth", "whoami")
