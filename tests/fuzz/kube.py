"""What an API server and the components of a node say to the API proxy of that node."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.autonomy.answering.callers import bearer_of, bound_pod
from edge_agent.autonomy.asks import named_scope, read_ask, scope_of
from edge_agent.autonomy.operator.kubelet_access import KubeletAccess
from edge_agent.autonomy.operator.operator_tokens import PREFIX, OperatorUnknown, opened
from edge_agent.autonomy.writing.statuses import KEYS, checked_status
from tests.fuzz.engine import Target
from tunnel.aio.http.http1 import Headers, Request
from tunnel.aio.process.config import ServerAddress
from tunnel.kubeapi.codecs import CODECS, JSON, Codec
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.endpoint_slices import LocalPod, with_local_pods
from tunnel.kubeapi.replica import Event
from tunnel.kubeapi.request_info import request_info
from tunnel.kubeapi.strategic_merge import difference, merged
from tunnel.kubeapi.wire_scan import length_delimited, seal

PODS = {"a": LocalPod(("10.0.0.9", "fd00::9"), is_ready=True, overrides=True)}
_OBJECT = b'{"metadata":{"name":"a","namespace":"b","uid":"c","resourceVersion":"5","labels":{"d":"e"}},"spec":{}}'
_LIST = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[%b,%b]}' % (_OBJECT, _OBJECT)
_SLICE = (b'{"metadata":{"name":"s","resourceVersion":"5"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],'
          b'"conditions":{"ready":true},"targetRef":{"uid":"a"}}]}')  # fmt: skip


def targets() -> list[Target]:
    """All of them."""
    kept = [_lists("json"), _lists("protobuf"), _events("json"), _events("protobuf"), _slices(), _patches(), _asks()]
    return [*kept, _operator(), _reviews()]


def _protobuf_list() -> bytes:
    item = CODECS["json"].read_item(_OBJECT)
    fields = [(1, b"a"), (3, b"b"), (5, b"c"), (6, b"5"), (11, length_delimited(1, b"d") + length_delimited(2, b"e"))]
    raw = length_delimited(1, b"".join(length_delimited(*one) for one in fields))
    return CODECS["protobuf"].whole_list("v1", "PodList", "9", [item._replace(raw=raw)] * 2)


def _words(codec: Codec) -> tuple[bytes, ...]:
    if codec is JSON:
        return b'"items":[', b'"metadata":{', b"null", b"[" * 3000, b'"resourceVersion":"', b"}\n{", b'"type":"ERROR",'
    return b"k8s\x00", b"\x0a\x01a", b"\x12", b"\xff" * 9, b"\x80" * 11, b"\x00\x00\x00\x05"


def _lists(name: str) -> Target:
    codec = CODECS[name]

    def run(data: bytes) -> None:
        listed = codec.read_list(data)
        again = codec.read_list(codec.whole_list(listed.api_version, listed.kind, "7", listed.items))
        assert again.items == listed.items, "what is kept is not what came"

    seed = _LIST if codec is JSON else _protobuf_list()
    return Target(name=f"kube-lists-{name}", seeds=[seed], run=run, allowed=(ValueError,), words=_words(codec))


def _events(name: str) -> Target:
    codec = CODECS[name]

    def run(data: bytes) -> None:
        def told(pieces: list[bytes]) -> list[tuple[str, object, str]]:
            frames = codec.frames()
            found: list[tuple[str, object, str]] = []
            with suppress(ValueError):
                for piece in pieces:
                    for one in frames.feed(piece):
                        found.append((one.kind, one.item, one.version))
            return found

        whole = told([data])
        assert told([data[at : at + 5] for at in range(0, len(data), 5)]) == whole, "pieces make a difference"

    listed = codec.read_list(_LIST if codec is JSON else _protobuf_list())
    events = [codec.event("v1", "Pod", Event(kind, listed.items[0], 8)) for kind in ("ADDED", "DELETED")]
    events += [codec.bookmark("v1", "Pod", 9, initial_end=True)]
    events += [codec.error({"message": "gone", "reason": "Expired", "code": 410})]
    return Target(name=f"kube-events-{name}", seeds=[b"".join(events)], run=run, words=_words(codec))


def _slices() -> Target:
    def run(data: bytes) -> None:
        for codec in CODECS.values():
            with suppress(ValueError):
                with_local_pods(data, codec, PODS)

    target = length_delimited(4, length_delimited(4, b"a"))
    endpoint = length_delimited(1, b"10.0.0.1") + length_delimited(2, b"\x08\x01") + target
    seeds = [_SLICE, length_delimited(2, endpoint) + length_delimited(4, b"IPv4")]
    return Target(name="endpoint-slices", seeds=seeds, run=run, words=(b'"endpoints":[', b'"conditions":', b"\x12\x02"))


def _patches() -> Target:
    def run(data: bytes) -> None:
        both = decode(b"[" + data + b"]")
        if not isinstance(both, list) or len(both) != 2 or not all(isinstance(one, dict) for one in both):
            raise ValueError("no objects")
        base, patch = both
        with suppress(RecursionError):
            status = checked_status(merged({"status": base}, {"status": patch}, KEYS["pods"]).get("status"), "pods")
            difference(checked_status(base, "pods"), status, KEYS["pods"], "status")

    condition = {"type": "Ready", "status": "True"}
    patch = {"conditions": [condition, {"$patch": "delete", "type": "x"}], "$setElementOrder/conditions": [condition],
             "podIPs": [{"$patch": "replace"}], "a": None}  # fmt: skip
    seed = json.dumps({"conditions": [condition], "podIPs": [{"ip": "1"}], "a": {"b": 1}}) + "," + json.dumps(patch)
    words = (b'"$patch":"replace"', b'"$patch":"delete"', b'"$deleteFromPrimitiveList/a":', b'"$retainKeys":', b"null")
    return Target(name="status-patches", seeds=[seed.encode()], run=run, allowed=(ValueError,), words=words)


def _asks() -> Target:
    def run(data: bytes) -> None:
        path, query, accept, authorization = (data.decode("latin-1").split("\n") + [""] * 4)[:4]
        parameters = [(name, value) for name, _, value in (one.partition("=") for one in query.split("&"))]
        info = request_info("GET", path, parameters)
        ask = read_ask(info, parameters, accept, "node", is_node=True)
        named = named_scope(info, accept, "node")
        for scope in (ask.scope if ask is not None else None, named):
            assert scope is None or scope_of(scope.text()) == scope
        token = bearer_of(authorization)
        bound_pod(token or "")

    seed = (b"/api/v1/namespaces/a/pods\nresourceVersion=0&limit=500&fieldSelector=metadata.name=b&watch=1"
            b"\napplication/vnd.kubernetes.protobuf,application/json;q=0.5\nBearer e30.eyJhIjoxfQ.c2ln")  # fmt: skip
    words = (b"/apis/", b"watch", b"&sendInitialEvents=true", b";as=Table", b"Bearer ", b".W10.", b"\n")
    return Target(name="node-requests", seeds=[seed], run=run, words=words)


def _operator() -> Target:
    def run(data: bytes) -> None:
        opened(b"key", PREFIX + data.decode("latin-1"), datetime.now(UTC))
        raise AssertionError("a token was made without the key")

    seed = b"WyJraW0iLDIwMDAwMDAwMDBd.bm90aGluZw=="
    return Target(name="operator-tokens", seeds=[seed], run=run, allowed=(OperatorUnknown,), words=(b".", b"=", b"-_"))


def _reviews() -> Target:
    access = KubeletAccess(ServerAddress("127.0.0.1:10250"), Path("/none"))

    def run(data: bytes) -> None:
        for kind in ("application/json", "application/vnd.kubernetes.protobuf"):
            for path in ("/apis/authentication.k8s.io/v1/tokenreviews",
                         "/apis/authorization.k8s.io/v1/subjectaccessreviews"):  # fmt: skip
                request = Request("POST", path, Headers([("content-type", kind)]))
                assert access.review(request_info("POST", path, ()), request, data) is None, "that is nobody we know"

    attributes = {"verb": "get", "resource": "nodes", "subresource": "proxy"}
    seed = json.dumps({"spec": {"token": "x", "user": "longline:operator:0", "resourceAttributes": attributes}})
    raw = length_delimited(2, length_delimited(1, b"x") + length_delimited(3, b"longline:operator:0"))
    seeds = [seed.encode(), *(seal("v1", kind, raw) for kind in ("TokenReview", "SubjectAccessReview"))]
    return Target(name="kubelet-reviews", seeds=seeds, run=run, words=(b'"spec":', b"null", b"k8s\x00", b"\x12", b"{}"))
