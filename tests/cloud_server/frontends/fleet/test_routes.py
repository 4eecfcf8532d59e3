from __future__ import annotations

import pytest

from cloud_server.frontends.fleet.routes import parse
from tunnel.aio.http.http1 import Headers, Request
from tunnel.kubeapi.list_options import Query
from tunnel.kubeapi.status import ApiError


def _request(method: str, target: str) -> Request:
    return Request(method, target, Headers())


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/api/v1/nodes", ("nodes", "list", "", "")),
        ("GET", "/api/v1/nodes/box-7", ("nodes", "get", "", "box-7")),
        ("GET", "/api/v1/nodes?watch=true", ("nodes", "watch", "", "")),
        ("GET", "/api/v1/nodes?watch=0", ("nodes", "list", "", "")),
        ("GET", "/api/v1/namespaces", ("namespaces", "list", "", "")),
        ("GET", "/api/v1/namespaces/default", ("namespaces", "get", "", "default")),
        ("GET", "/api/v1/namespaces/default/pods/", ("pods", "list", "default", "")),
        ("HEAD", "/api/v1/namespaces/default/pods/box-7", ("pods", "get", "default", "box-7")),
        ("POST", "/api/v1/namespaces/default/pods/box-7/exec", ("pods/exec", "create", "default", "box-7")),
        ("GET", "/api/v1/namespaces/default/pods/box-7/log", ("pods/log", "get", "default", "box-7")),
        ("DELETE", "/api/v1/namespaces/default/pods", ("pods", "deletecollection", "default", "")),
        ("PATCH", "/api/v1/nodes/box-7", ("nodes", "patch", "", "box-7")),
        (
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a",
            ("leases", "get", "kube-node-lease", "a"),
        ),
    ],
)
def test_paths_of_resources(method: str, target: str, expected: tuple[str, str, str, str]) -> None:
    about = parse(_request(method, target))
    assert about is not None
    assert (about.resource.name, about.verb, about.namespace, about.name) == expected


@pytest.mark.parametrize(
    "target", ["/", "/version", "/api", "/api/v1", "/apis", "/apis/a", "/apis/a/v1", "/openapi/v3"]
)
def test_other_paths_are_left_to_others(target: str) -> None:
    assert parse(_request("GET", target)) is None


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/secrets",
        "/api/v2/nodes",
        "/apis/apps/v1/widgets",
        "/api/v1/nodes/a/b/c",
        "/api/v1/nodes/box-7/proxy",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/pods/..",
        "/api/v1/namespaces/../pods",
        "/api/v1/namespaces/default/pods/a%2Fb/exec/x",
        "/api/v1/namespaces/default/pods/a%0d%0ab",
        "/api/v1/namespaces/default/pods//exec",
    ],
)
def test_paths_that_name_nothing_are_404(target: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(_request("GET", target))
    assert caught.value.code == 404


def test_query_values() -> None:
    query = Query([("a", "1"), ("command", "ls"), ("command", "-l"), ("b", ""), ("c", "false"), ("d", "-1")])
    assert (query.text("a"), query.text("z", "?")) == ("1", "?")
    assert query.every("command") == ["ls", "-l"]
    assert [query.flag(name) for name in ("a", "b", "c", "z")] == [True, True, False, False]
    assert (query.number("a", 9), query.number("z", 9)) == (1, 9)
    with pytest.raises(ApiError):
        query.number("d", 0)
