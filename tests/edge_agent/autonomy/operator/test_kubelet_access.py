"""The kubelet is told who the agent is, and of nobody else; and only a process of root is taken for the kubelet."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.autonomy.operator import kubelet_access
from edge_agent.autonomy.operator.kubelet_access import KubeletAccess
from tests.support.cgroup2 import needs_cgroup, own_cgroup
from tests.support.pki import Authority
from tunnel.aio.http.http1 import Headers, Request
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tcp_owner import TcpOwner
from tunnel.kubeapi.request_info import request_info
from tunnel.kubeapi.status import Json
from tunnel.kubeapi.wire_scan import length_delimited, seal

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def in_json(kind: str, spec: Json) -> tuple[str, bytes]:
    return "application/json", json.dumps({"kind": kind, "spec": spec}).encode()


def in_protobuf(kind: str, spec: Json) -> tuple[str, bytes]:
    """As a kubelet writes it."""
    numbers = {"token": 1, "resourceAttributes": 1, "user": 3, "verb": 2, "group": 3, "resource": 5, "subresource": 6}

    def message(fields: Json) -> bytes:
        return b"".join(
            length_delimited(numbers[name], message(value) if isinstance(value, dict) else value.encode())
            for name, value in fields.items()
        )

    return "application/vnd.kubernetes.protobuf", seal("x/v1", kind, length_delimited(2, message(spec)))


Form = Callable[[str, Json], tuple[str, bytes]]
both_forms = pytest.mark.parametrize("form", [in_json, in_protobuf])


def asked(access: KubeletAccess, path: str, form: Form, kind: str, spec: Json) -> Json | None:
    content_type, body = form(kind, spec)
    request = Request("POST", path, Headers([("content-type", content_type)]))
    return access.review(request_info("POST", path, ()), request, body)


@both_forms
def test_the_kubelet_is_told_of_the_agent_and_of_nobody_else(form: Form) -> None:
    access, other = (KubeletAccess(ServerAddress("127.0.0.1:10250"), Path("/none")) for _ in range(2))
    token = access.credentials()[1].removeprefix("Bearer ")
    said = asked(access, TOKENS, form, "TokenReview", {"token": token})
    assert said is not None
    assert said["status"]["authenticated"] is True
    user = said["status"]["user"]["username"]
    for wrong in (token + "x", "", "longline-operator-x", other.credentials()[1].removeprefix("Bearer ")):
        assert asked(access, TOKENS, form, "TokenReview", {"token": wrong}) is None

    def may(user: str, verb: str, resource: str, subresource: str, group: str = "") -> bool | None:
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
        spec = {"resourceAttributes": attributes, "user": user}
        answer = asked(access, ACCESS, form, "SubjectAccessReview", spec)
        return None if answer is None else answer["status"]["allowed"]

    assert may(user, "get", "nodes", "proxy")
    assert may(user, "create", "nodes", "proxy")
    refused = [("delete", "nodes", "proxy"), ("get", "nodes", ""), ("get", "pods", "proxy")]
    assert not any(may(user, *about) for about in refused)
    assert may(user, "get", "nodes", "proxy", "other") is False
    for somebody in ("system:anonymous", "longline:operator", user + "0", ""):
        assert may(somebody, "get", "nodes", "proxy") is None, "that is the API server's to say"


@pytest.mark.parametrize("body", [b"", b"5", b"[]", b"{}", b'{"spec":5}', b'{"spec":{"user":{}}}', b"k8s\0\xff"])
@pytest.mark.parametrize("path", [TOKENS, ACCESS])
def test_what_is_no_review_is_not_answered(path: str, body: bytes) -> None:
    access = KubeletAccess(ServerAddress("127.0.0.1:10250"), Path("/none"))
    for kind in ("application/json", "application/vnd.kubernetes.protobuf"):
        request = Request("POST", path, Headers([("content-type", kind)]))
        assert access.review(request_info("POST", path, ()), request, body) is None


@needs_cgroup
@pytest.mark.parametrize(("family", "host"), [("4", "127.0.0.1"), ("6", "::1"), ("both", "127.0.0.1")])
def test_the_kubelet_is_known_by_the_other_end(tmp_path: Path, family: str, host: str) -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6))
        listening.bind(("::" if family == "both" else host, 0))
        listening.listen()
        client = stack.enter_context(socket.create_connection((host, listening.getsockname()[1])))
        stack.enter_context(listening.accept()[0])
        there, here = client.getpeername()[:2], client.getsockname()[:2]
        own = own_cgroup()
        assert own is not None
        assert kubelet_access._doubt(there, here, own) == ""
        assert "not in the cgroup" in kubelet_access._doubt(there, here, tmp_path)
        assert "No such file" in kubelet_access._doubt(there, here, tmp_path / "none")
        assert "no process of root" in kubelet_access._doubt(there, (here[0], here[1] ^ 1), own)


OWN = 7
ROOTS, OTHERS, ELSEWHERE = TcpOwner(0, 1, OWN), TcpOwner(1000, 1, OWN), TcpOwner(0, 1, OWN + 1)


@pytest.mark.parametrize(("owner", "doubt"), [
    (ROOTS, ""), (OTHERS, "no process of root"), (ELSEWHERE, "not in the cgroup"),
    (TcpOwner(0, 1, None), "knows no cgroups"), (None, "no process of root"),
])  # fmt: skip
async def test_only_the_kubelet_is_shown_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: TcpOwner | None, doubt: str
) -> None:
    wanted = tmp_path.stat().st_ino
    if owner is not None and owner.cgroup is not None:
        owner = replace(owner, cgroup=owner.cgroup - OWN + wanted)
    monkeypatch.setattr(kubelet_access, "owner_of", lambda _there, _here: owner)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().issue(hosts=["kubelet"]).write(tmp_path, "kubelet"))
    listener = Listener("kubelet", lambda conn: conn.lost())
    await listener.listen_tcp("127.0.0.1:0", context)
    lines = KubeletAccess(ServerAddress(f"127.0.0.1:{listener.ports[0]}"), tmp_path).lines
    try:
        if not doubt:
            lines.give_back(await lines.take())
        else:
            with pytest.raises(PermissionError, match=doubt):
                await lines.take()
    finally:
        lines.cut()
        await listener.aclose()
