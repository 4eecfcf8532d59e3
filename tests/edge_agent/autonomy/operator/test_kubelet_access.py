"""The kubelet is told who the agent is, and of nobody else; and only a process of root is taken for the kubelet."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.autonomy.operator.kubelet_access import KubeletAccess, owner_of
from tests.support.pki import Authority
from tunnel.aio.http.http1 import Headers, Request
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.listener import Listener
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
    access, other = (KubeletAccess(ServerAddress("127.0.0.1:10250")) for _ in range(2))
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
    access = KubeletAccess(ServerAddress("127.0.0.1:10250"))
    for kind in ("application/json", "application/vnd.kubernetes.protobuf"):
        request = Request("POST", path, Headers([("content-type", kind)]))
        assert access.review(request_info("POST", path, ()), request, body) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_owner_of_the_other_end(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening, socket.socket(family) as client:
        listening.bind((host, 0))
        listening.listen()
        client.connect(listening.getsockname())
        server, _ = listening.accept()
        with server:
            there, here = client.getpeername()[:2], client.getsockname()[:2]
            assert owner_of(there, here) == os.geteuid()
            assert owner_of(there, (here[0], here[1] ^ 1)) is None


def test_an_end_of_ipv4_may_be_listed_as_one_of_ipv6(tmp_path: Path) -> None:
    line = ("   1: 0000000000000000FFFF00000100007F:280A 0000000000000000FFFF00000100007F:1234 01 0:0 00:0 0"
            "     0        0 1 1 0\n")  # fmt: skip
    (tmp_path / "tcp6").write_text("head\n" + line)
    tables = (tmp_path / "none", tmp_path / "tcp6")
    assert owner_of(("127.0.0.1", 0x280A), ("127.0.0.1", 0x1234), tables) == 0
    (tmp_path / "tcp6").write_text("head\n" + line.replace(" 01 ", " 06 "))
    assert owner_of(("127.0.0.1", 0x280A), ("127.0.0.1", 0x1234), tables) is None


@pytest.mark.parametrize("owner", [0, 1000, None])
async def test_only_a_process_of_root_is_shown_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int | None
) -> None:
    monkeypatch.setattr("edge_agent.autonomy.operator.kubelet_access.owner_of", lambda _there, _here: owner)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().issue(hosts=["kubelet"]).write(tmp_path, "kubelet"))
    listener = Listener("kubelet", lambda conn: conn.lost())
    await listener.listen_tcp("127.0.0.1:0", context)
    lines = KubeletAccess(ServerAddress(f"127.0.0.1:{listener.ports[0]}")).lines
    try:
        if owner == 0:
            lines.give_back(await lines.take())
        else:
            with pytest.raises(PermissionError, match=f"is no process of root \\({owner}\\)"):
                await lines.take()
    finally:
        lines.cut()
        await listener.aclose()
