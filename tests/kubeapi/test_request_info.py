"""What requests are about. The cases are those that apiserver v0.34 tests its own rules with (requestinfo_test.go), and
some of what the components of a node ask.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from tunnel.kubeapi.request_info import RequestInfo, request_info


def of(method: str, target: str) -> RequestInfo:
    url = urlsplit(target)
    return request_info(method, url.path, parse_qsl(url.query, keep_blank_values=True))


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/api/v1/namespaces", ("list", "", "v1", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/other", ("get", "", "v1", "other", "namespaces", "other", "")),
        ("GET", "/api/v1/namespaces/other/pods", ("list", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods/foo", ("get", "", "v1", "other", "pods", "foo", "")),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", ("get", "", "v1", "other", "pods", "foo", "")),
        ("GET", "/api/v1/pods", ("list", "", "v1", "", "pods", "", "")),
        ("HEAD", "/api/v1/pods", ("list", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/watch/pods", ("watch", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/watch/namespaces/other/pods", ("watch", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch=1", ("watch", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch=false", ("list", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch", ("watch", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo", ("proxy", "", "v1", "other", "pods", "foo", "")),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo/subpath", ("proxy", "", "v1", "other", "pods", "foo", "")),
        ("GET", "/api/v1/namespaces/other/pods/foo/proxy/sub/path", ("get", "", "v1", "other", "pods", "foo", "proxy")),
        ("PUT", "/api/v1/namespaces/other/finalize", ("update", "", "v1", "other", "namespaces", "other", "finalize")),
        ("PUT", "/api/v1/namespaces/other/status", ("update", "", "v1", "other", "namespaces", "other", "status")),
        ("PATCH", "/api/v1/namespaces/other/pods/foo", ("patch", "", "v1", "other", "pods", "foo", "")),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", ("delete", "", "v1", "other", "pods", "foo", "")),
        ("DELETE", "/api/v1/namespaces/other/pods", ("deletecollection", "", "v1", "other", "pods", "", "")),
        ("POST", "/api/v1/pods", ("create", "", "v1", "", "pods", "", "")),
        ("POST", "/apis/batch/v1/namespaces/other/jobs", ("create", "batch", "v1", "other", "jobs", "", "")),
        ("PATCH", "/api/v1/nodes/n/status?fieldManager=x", ("patch", "", "v1", "", "nodes", "n", "status")),
        (
            "POST",
            "/api/v1/namespaces/a/serviceaccounts/s/token",
            ("create", "", "v1", "a", "serviceaccounts", "s", "token"),
        ),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1&limit=500", ("list", "", "v1", "", "nodes", "n1", "")),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name!%3Dn1", ("list", "", "v1", "", "nodes", "", "")),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Da%2Fb", ("list", "", "v1", "", "nodes", "", "")),
        ("GET", "/api/v1/nodes?fieldSelector=rubbish", ("list", "", "v1", "", "nodes", "", "")),
        ("OPTIONS", "/api/v1/pods", ("", "", "v1", "", "pods", "", "")),
    ],
)
def test_resources(method: str, target: str, expected: tuple[str, ...]) -> None:
    info = of(method, target)
    assert info.is_resource
    found = (info.verb, info.group, info.version, info.namespace, info.resource, info.name, info.subresource)
    assert found == expected


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/a/b/c", ""]
)
def test_other_paths(path: str) -> None:
    assert of("GET", path) == RequestInfo(verb="get", path=path)


def test_the_selectors_of_what_is_about_many_objects() -> None:
    query = "labelSelector=app%3Dx&fieldSelector=spec.nodeName%3Dn1&fieldSelector=later"
    for method, verb in (("GET", "list"), ("DELETE", "deletecollection")):
        info = of(method, f"/api/v1/pods?{query}")
        assert (info.verb, info.label_selector, info.field_selector) == (verb, "app=x", "spec.nodeName=n1")
    assert not of("GET", f"/api/v1/namespaces/a/pods/p?{query}").label_selector
    assert not of("GET", f"/api/v1/watch/pods?{query}").field_selector
