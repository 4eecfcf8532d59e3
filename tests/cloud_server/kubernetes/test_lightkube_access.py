"""What is said about a kubeconfig that cannot be used, and what is made of an API's answers.

How a cluster is read is tested on real ones too (tests/e2e).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from httpx2 import MockTransport, Request, Response
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from cloud_server.kubernetes.access import Changed, ClusterUnavailable, Deleted, NotPermitted, VersionTooOld
from cloud_server.kubernetes.lightkube_access import KubeconfigUnusable, LightkubeAccess
from cloud_server.kubernetes.objects import Endpoint, EndpointSlice, Key, Node, Pod
from tests.support.pki import Authority

NO_CONTEXT = "clusters: []\nusers: []\ncontexts: []\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ": No such file or directory"),
        ("x: [", " is no kubeconfig: it is not YAML"),
        ("x: 1", " is no kubeconfig: it has no clusters"),
        (NO_CONTEXT, ": No current context set and no default provided"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KubeconfigUnusable) as caught:
        LightkubeAccess.from_kubeconfig(path)
    assert str(caught.value) == f"{path}{text}"


def test_a_folder_in_place_of_a_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigUnusable, match="Is a directory"):
        LightkubeAccess.from_kubeconfig(tmp_path)


Answer = Callable[[Request], Response]


def access(answer: Answer) -> LightkubeAccess:
    config = KubeConfig.from_one(cluster=Cluster(server="http://api.example.com"), user=User())
    return LightkubeAccess(AsyncClient(config, transport=MockTransport(answer), trust_env=False))


def says(**content: Any) -> Answer:
    return lambda _request: Response(200, json=content)


def a_pod(name: str, *addresses: str, **spec: object) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7", "managedFields": [{"manager": "x"}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "web"}], **spec},
        "status": {"podIPs": [{"ip": address} for address in addresses], "conditions": []},
    }


async def test_pods_by_all_their_addresses_and_only_those_that_have_not_ended() -> None:
    asked: list[Request] = []
    young = {"metadata": {"name": "young", "namespace": "shop", "resourceVersion": "8"}, "spec": {}, "status": {}}
    leaving = a_pod("leaving", "10.88.1.3")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    def answer(request: Request) -> Response:
        asked.append(request)
        items = [a_pod("one", "10.88.1.2", "fd00::2"), a_pod("host", "10.0.0.2", hostNetwork=True), young, leaving]
        return Response(200, json={"metadata": {"resourceVersion": "9"}, "items": items})

    own = access(answer)
    snapshot = await own.list_all(Pod)
    await own.aclose()
    assert snapshot.version == "9"
    assert snapshot.objects == [
        Pod(key=Key("shop", "one"), node="n1", addresses=tuple(map(ipaddress.ip_address, ("10.88.1.2", "fd00::2")))),
        Pod(key=Key("shop", "host"), node="n1"),
        Pod(key=Key("shop", "young"), node=""),
        Pod(key=Key("shop", "leaving"), node="n1", addresses=(ipaddress.ip_address("10.88.1.3"),), leaving=True),
    ]
    assert asked[0].url.path == "/api/v1/pods"
    selected = asked[0].url.params["fieldSelector"].split(",")
    assert sorted(selected) == ["status.phase!=Failed", "status.phase!=Succeeded"]


async def test_a_watch_of_pods() -> None:
    events = [{"type": "MODIFIED", "object": a_pod("one", "10.88.1.2")}, {"type": "DELETED", "object": a_pod("one")}]
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in [*events, gone])
    own = access(lambda request: Response(200, content=lines))
    changes = own.watch(Pod, "5", 240)
    pod = Pod(key=Key("shop", "one"), node="n1", addresses=(ipaddress.ip_address("10.88.1.2"),))
    assert await anext(changes) == Changed(pod, "7")
    assert await anext(changes) == Deleted(Key("shop", "one"), "7")
    with pytest.raises(VersionTooOld):
        await anext(changes)
    await own.aclose()


async def test_a_client_that_was_closed_under_its_user_is_no_fault_of_ours() -> None:
    own = access(says(metadata={"resourceVersion": "9"}, items=[]))
    await own.list_all(Pod)
    await own.aclose()
    with pytest.raises(ClusterUnavailable, match="closed"):
        await own.list_all(Pod)
    with pytest.raises(ClusterUnavailable, match="closed"):
        await anext(own.watch(Pod, "5", 240))


async def test_endpoints_ready_or_not_with_all_their_addresses() -> None:
    ref = {"kind": "Pod", "namespace": "shop", "name": "one"}
    endpoints = [
        {"addresses": ["10.88.1.2"], "nodeName": "n1", "targetRef": ref, "conditions": {"ready": True}},
        {"addresses": ["10.88.1.3"], "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": ["10.88.1.4"], "conditions": {"ready": False}},
        {"addresses": ["10.88.1.5", "10.88.1.6"]},
    ]
    metadata = {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
    item = {
        "addressType": "IPv4",
        "metadata": metadata,
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}],
    }
    own = access(says(metadata={"resourceVersion": "9"}, items=[item]))
    (found,) = (await own.list_all(EndpointSlice)).objects
    await own.aclose()
    assert isinstance(found, EndpointSlice)
    assert (found.service, found.ports) == (Key("shop", "web"), {"http": 8080})
    assert found.endpoints == (
        Endpoint(("10.88.1.2",), "n1", of_pod=True),
        Endpoint(("10.88.1.3",), ready=False),
        Endpoint(("10.88.1.4",), ready=False, serving=False),
        Endpoint(("10.88.1.5", "10.88.1.6")),
    )


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Response(403, json={"kind": "Status", "code": 403, "message": "pods is forbidden"}), NotPermitted, "pods is"),
        (Response(503, json={"kind": "Status", "code": 503, "message": "starting"}), ClusterUnavailable, "starting"),
        (Response(200, content=b"<html>log in</html>"), ClusterUnavailable, "not what a Kubernetes API says"),
        (Response(200, json={"metadata": {}, "items": [{}]}), ClusterUnavailable, "not what a Kubernetes API says"),
        (Response(200, json={"metadata": {}, "items": [7]}), ClusterUnavailable, "not what a Kubernetes API says"),
    ],
)
async def test_an_answer_without_pods(answer: Response, error: type[Exception], text: str) -> None:
    own = access(lambda _request: answer)
    with pytest.raises(error, match=text) as caught:
        await own.list_all(Pod)
    await own.aclose()
    assert type(caught.value) is error


@contextlib.asynccontextmanager
async def api_server(authority: Authority, folder: Path) -> AsyncIterator[str]:
    """Demands a client certificate, and has no nodes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(hosts=["127.0.0.1"]).write(folder, "api"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.pem.decode())
    body = b'{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.may_block("kubeconfigs are read where the event loop runs")
async def test_a_client_certificate_that_ended_is_read_again_when_its_file_changed(tmp_path: Path) -> None:
    authority = Authority()
    over = timedelta(days=-1)
    authority.issue(ends_in=over).write(tmp_path, "me")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    async with api_server(authority, tmp_path) as url:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": "ca.crt"}}],
            "users": [{"name": "u", "user": {"client-certificate": "me.crt", "client-key": "me.key"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        own = LightkubeAccess.from_kubeconfig(path)
        try:
            with pytest.raises(ClusterUnavailable):
                await own.list_all(Node)
            authority.issue().write(tmp_path, "me")
            assert (await own.list_all(Node)).version == "7"
            path.write_text("x: 1")
            with pytest.raises(ClusterUnavailable, match="is no kubeconfig"):
                await own.list_all(Node)
            path.write_text(yaml.safe_dump(config))
            assert (await own.list_all(Node)).objects == []
        finally:
            await own.aclose()
