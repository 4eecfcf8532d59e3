"""A kubelet whose certificate has ended shows none, and is known by its socket; nobody else is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge_agent.autonomy.answering import bare_kubelet
from tests.edge_agent.autonomy.proxied import DAY, Proxied, proxied
from tests.support.accounts import as_account, needs_root
from tests.support.cgroup2 import needs_cgroup
from tunnel.aio.sockets.tcp_owner import TcpOwner
from tunnel.core.wire.faults import NOT_THE_KUBELET

PODS = "/api/v1/pods?resourceVersion=0"


@pytest.fixture(autouse=True)
def this_account_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare_kubelet, "ROOT", os.getuid())
    monkeypatch.setattr(bare_kubelet, "LOOK_S", 0.0)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Proxied]:
    async with proxied(tmp_path) as made:
        await made.kube.put("pods", "one", "ns")
        assert (await made.as_kubelet("GET", PODS)).names == ["one"]
        yield made


async def away(node: Proxied, **headers: str) -> int:
    """The status of the kubelet's pods, asked without a certificate while the API server is away."""
    items = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return (await node.ask("GET", PODS, items)).status


@needs_cgroup
async def test_a_kubelet_boots_without_the_cloud_and_with_a_certificate_that_is_over(node: Proxied) -> None:
    answered = {"kind": "TokenRequest", "status": {"token": "t", "expirationTimestamp": "2020-01-01T00:00:00Z"}}
    path, body = "/api/v1/namespaces/ns/serviceaccounts/default/token", json.dumps(answered).encode()
    assert (await node.as_kubelet("POST", path, body, content_type="application/json")).status == 201
    await node.cut()
    assert await away(node) == 503, "its certificate is good, and is not shown"
    node.issue(ends_in=-DAY)
    await node.stop()
    await node.start()
    for version in (1, 2):
        assert (await node.ask("GET", PODS, version=version)).names == ["one"]
        said = await node.ask("POST", path, [("content-type", "application/json")], body, version=version)
        assert (said.status, json.loads(said.body)) == (201, answered), "with its true time"
    assert (await node.ask("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", (), b"{}")).status == 503
    assert node.proxy.as_json()["grace_left_s"] in range(3500, 3601)
    # The one who shows it is the node still: so does a kubelet that does not rotate its certificate.
    assert (await node.as_kubelet("GET", PODS)).names == ["one"]


@needs_cgroup
async def test_the_api_server_is_back_and_refuses_it(node: Proxied) -> None:
    node.issue(ends_in=-DAY)
    node.proxy.api._node.renew()
    await node.proxy.api.standing.look()
    assert node.proxy.as_json()["node_refused_since"] is not None
    assert (await node.ask("GET", PODS)).names == ["one"]
    assert (await node.ask("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", (), b"{}")).status == 401
    node.issue(ends_in=DAY)
    await node.proxy.api.standing.look()
    assert node.proxy.as_json()["node_refused_since"] is None
    assert (await node.ask("GET", PODS)).status == 403, "it has one to show again"


@needs_cgroup
@pytest.mark.parametrize("headers", [
    {"authorization": "Bearer x"}, {"authorization": "Basic eDp5"}, {"impersonate_user": "system:admin"},
    {"impersonate_extra_scopes": "x"},
])  # fmt: skip
async def test_who_says_who_they_are_is_not_the_kubelet(node: Proxied, headers: dict[str, str]) -> None:
    await node.cut()
    node.issue(ends_in=-DAY)
    assert await away(node) == 200
    assert await away(node, **headers) == 503


async def test_root_somewhere_else_is_not_the_kubelet(node: Proxied, tmp_path: Path) -> None:
    """Such as a pod with the node's network."""
    await node.cut()
    node.issue(ends_in=-DAY)
    for cgroup in (tmp_path, tmp_path / "none"):
        node.cgroup = cgroup
        await node.stop()
        await node.start()
        with capture_logs() as logs:
            assert [await away(node) for _ in range(3)] == [503] * 3
        assert [line["code"] for line in logs if "client" in line["event"]] == [NOT_THE_KUBELET.code], "said once"


@needs_cgroup
async def test_another_account_is_not_the_kubelet(node: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.cut()
    node.issue(ends_in=-DAY)
    monkeypatch.setattr(bare_kubelet, "ROOT", os.getuid() + 1)
    assert await away(node, user_agent="kubelet/v1.34.4 (linux/amd64)") == 503


@needs_root
@needs_cgroup
async def test_a_process_of_another_account_is_not_the_kubelet(node: Proxied, tmp_path_factory: Any) -> None:
    await node.cut()
    node.issue(ends_in=-DAY)
    code = (
        "import ssl, sys, http.client\n"
        "context = ssl._create_unverified_context()\n"
        f"http = http.client.HTTPSConnection('127.0.0.1', {node.port}, context=context, timeout=10)\n"
        f"http.request('GET', '{PODS}', headers={{'User-Agent': 'kubelet/v1.34.4'}})\n"
        "print(http.getresponse().status)\n"
    )
    kept = tmp_path_factory.mktemp("kept")
    said = [
        await asyncio.to_thread(
            subprocess.run, [*words, sys.executable, "-c", code], capture_output=True, text=True, timeout=30
        )
        for words in ([], as_account(12345, kept))
    ]
    assert [one.stdout for one in said] == ["200\n", "503\n"], said


def pass_by(node: Proxied, seconds: float) -> None:
    """As if the agent had run for so long."""
    kubelet = node.proxy._bare_kubelet
    assert kubelet._since_s is not None
    kubelet._since_s -= seconds


@needs_cgroup
async def test_it_is_believed_for_a_while(node: Proxied) -> None:
    await node.cut()
    node.issue(ends_in=-DAY)
    assert await away(node) == 200
    pass_by(node, 3000)
    await node.proxy._bare_kubelet._count()
    await node.stop()
    await node.start()  # which is no new beginning
    assert await away(node) == 200
    assert node.proxy.as_json()["grace_left_s"] in range(400, 601)
    pass_by(node, 700)
    assert await away(node) == 503
    assert node.proxy.as_json()["grace_left_s"] == 0
    node.issue(ends_in=-2 * DAY)
    assert await away(node) == 200, "another certificate"


async def test_it_is_never_believed(tmp_path: Path) -> None:
    async with proxied(tmp_path, grace_s=0.0) as node:
        await node.as_kubelet("GET", PODS)
        await node.cut()
        node.issue(ends_in=-DAY)
        assert await away(node) == 503


@needs_cgroup
async def test_a_connection_that_is_another_by_now(node: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has reset it, and the kubelet has the same port: the look-up finds the kubelet's."""
    await node.cut()
    node.issue(ends_in=-DAY)
    cgroup = node.cgroup.stat().st_ino

    def found(_own: tuple[str, int], _other: tuple[str, int]) -> TcpOwner:
        return TcpOwner(os.getuid(), 7, cgroup)  # root's both ways, and not the socket that was accepted

    monkeypatch.setattr(bare_kubelet, "owner_of", found)
    assert await away(node) == 503


async def test_a_certificate_that_cannot_be_read_is_not_over(node: Proxied) -> None:
    await node.cut()
    node.certificate.write_bytes(b"rubbish")
    assert await away(node) == 503
    node.certificate.unlink()
    assert await away(node) == 503
    assert node.proxy.as_json()["certificate_ends"] is None
