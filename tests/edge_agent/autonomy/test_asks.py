"""Which requests are answered from what is kept, and what they are known by."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from edge_agent.autonomy.asks import DEFAULT_WATCH_S, Ask, Scope, named_scope, read_ask, scope_of
from tunnel.kubeapi.request_info import RequestInfo, request_info

PROTOBUF = "application/vnd.kubernetes.protobuf"
KUBELET = f"{PROTOBUF},application/json"
KUBECTL = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def info_of(target: str, method: str = "GET") -> tuple[RequestInfo, list[tuple[str, str]]]:
    parts = urlsplit(target)
    query = parse_qsl(parts.query, keep_blank_values=True)
    return request_info(method, unquote(parts.path), query), query


def ask(target: str, accept: str | None = KUBELET, *, method: str = "GET", is_node: bool = True) -> Ask | None:
    info, query = info_of(target, method)
    return read_ask(info, query, accept, "node", is_node=is_node)


def scope(target: str, accept: str | None = KUBELET, *, is_node: bool = True) -> Scope:
    found = ask(target, accept, is_node=is_node)
    assert found is not None
    return found.scope


def test_a_list_and_its_watch_are_one_scope() -> None:
    assert scope("/api/v1/services?limit=500&resourceVersion=0&fieldSelector=spec.clusterIP%21%3DNone") == scope(
        "/api/v1/services?watch=true&resourceVersion=7&timeoutSeconds=300&allowWatchBookmarks=true"
        "&fieldSelector=spec.clusterIP%21%3DNone&timeout=5m"
    )


@pytest.mark.parametrize(("one", "other"), [
    ("/api/v1/pods", "/api/v1/namespaces/a/pods"), ("/api/v1/pods", "/api/v1/pods?labelSelector=a"),
    ("/api/v1/pods?labelSelector=a", "/api/v1/pods?fieldSelector=a"), ("/apis/x/v1/y", "/apis/x/v2/y"),
    ("/api/v1/events", "/apis/events.k8s.io/v1/events"),
])  # fmt: skip
def test_others_are_others(one: str, other: str) -> None:
    assert scope(one) != scope(other)


@pytest.mark.parametrize(("target", "accept", "is_node", "encoding"), [
    ("/api/v1/pods", KUBELET, True, "json"), ("/api/v1/pods", PROTOBUF, True, "protobuf"),
    ("/api/v1/pods", KUBELET, False, "protobuf"), ("/api/v1/services", KUBELET, True, "protobuf"),
    ("/api/v1/services", None, True, "json"), ("/api/v1/services", "*/*", True, "json"),
    ("/api/v1/services", f"{PROTOBUF};q=0,application/json", True, "json"),
    ("/apis/x.io/v1/things", "application/json, */*", True, "json"),
])  # fmt: skip
def test_the_encoding(target: str, accept: str | None, is_node: bool, encoding: str) -> None:
    assert scope(target, accept, is_node=is_node).encoding == encoding


@pytest.mark.parametrize(("target", "accept", "method"), [
    ("/api/v1/pods", KUBECTL, "GET"), ("/api/v1/pods", "application/yaml", "GET"), ("/api/v1/pods", KUBELET, "DELETE"),
    ("/api/v1/pods?pretty=1", KUBELET, "GET"), ("/api/v1/watch/pods", KUBELET, "GET"), ("/version", KUBELET, "GET"),
    ("/api/v1/namespaces/a/pods/b", KUBELET, "GET"), ("/api/v1/namespaces/a/pods/b/log", KUBELET, "GET"),
    (f"/api/v1/pods?labelSelector={'x' * 5000}", KUBELET, "GET"), ("/api/v1", KUBELET, "GET"),
])  # fmt: skip
def test_what_passes_by(target: str, accept: str, method: str) -> None:
    assert ask(target, accept, method=method) is None


def test_the_options_of_a_watch() -> None:
    found = ask("/api/v1/pods?watch&resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=12&sendInitialEvents=1"
                "&resourceVersionMatch=NotOlderThan")  # fmt: skip
    assert found is not None
    assert found[1:9] == (True, "7", "NotOlderThan", False, "", True, True, 12.0)
    plain = ask("/api/v1/pods?watch=1&timeoutSeconds=0")
    assert plain is not None
    assert plain[1:9] == (True, "", "", False, "", False, False, DEFAULT_WATCH_S)


def test_a_scope_asks_for_what_it_was_asked_for() -> None:
    target = "/apis/a.b/v1/namespaces/n%20s/things?labelSelector=x%3Dy%2Cz&fieldSelector=q%21%3D1"
    found = scope(target, "application/json")
    assert found.target([("watch", "1")]) == f"{target}&watch=1"
    assert found.target([]) == target
    assert scope_of(found.text()) == found
    assert found.spoken() == "things.a.b in n s, x=y,z, q!=1"


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1,2,3,4,5,6,7,8]", '["a","b","c","d","e","f","g","xml"]'])
def test_a_text_that_names_no_scope(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        scope_of(text)


def test_one_object_is_the_scope_of_its_name() -> None:
    info, _ = info_of("/api/v1/namespaces/ns/secrets/s")
    named = named_scope(info, KUBELET, "node")
    assert named == scope("/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Ds")
    assert named is not None
    assert named.is_secret
    for target in ("/api/v1/namespaces/ns/secrets", "/api/v1/namespaces/ns/pods/a/log", "/version"):
        assert named_scope(info_of(target)[0], KUBELET, "node") is None
