"""The API server, as the check asks it: reached or not and why, its time, and the images of the node's pods."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.check.api_server import Hop, api_server, clock, hardware_clock, pods
from edge_agent.autonomy.check.findings import Finding
from edge_agent.autonomy.upward.dialling import ApiServer
from tests.edge_agent.autonomy.kube import Kube
from tests.support.pki import Authority
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.listener import Listener

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOBODY = 1
"""A port at which nobody listens."""
HOP = Hop("127.0.0.1:6443", "10.0.0.1:6443")


class Place:
    """An API server over TLS, and a node's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.kube = Kube()

    async def open(self) -> None:
        files = await asyncio.to_thread(self.write)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        context.load_verify_locations(cadata=self.authority.pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        self.kube.listener = Listener("kube", self.kube.serve_node)
        await self.kube.listener.listen_tcp("127.0.0.1:0", context)

    def write(self) -> tuple[Path, Path]:
        (self.folder / "ca.crt").write_bytes(self.authority.pem)
        (self.folder / "other.crt").write_bytes(Authority("other").pem)
        self.authority.issue(common_name="system:node:node-7", organization="system:nodes").write(self.folder, "node")
        return self.authority.issue(hosts=["127.0.0.1"]).write(self.folder, "server")

    async def found(self, port: int = 0, ca: str = "ca.crt", hop: Hop | None = None) -> list[Finding]:
        address = ServerAddress(f"127.0.0.1:{port or self.kube.listener.ports[0]}")
        folder = self.folder
        server = ApiServer(
            address=address, ca=folder / ca, client_cert=folder / "node.crt", client_key=folder / "node.key"
        )
        return [finding async for finding in api_server(server, "node-7", hop)]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.open()
    yield made
    await made.kube.listener.aclose()


async def test_it_is_asked_as_the_node(place: Place) -> None:
    await place.kube.put("pods", "web", "shop", spec={"containers": [{"name": "web", "image": "web:latest"}]})
    ready, no_clock, images = await place.found()
    assert ready.text.endswith("dialled directly answers the kubelet's certificate")
    assert no_clock.about == "clock"
    assert (images.level, images.text) == ("warning", "imagePullPolicy Always: shop/web web (web:latest)")
    assert place.kube.seen[1] == "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7"


async def test_why_it_is_not_reached(place: Place) -> None:
    (direct,) = await place.found(NOBODY)
    assert direct.level == "fault"
    assert "dialled directly" in direct.text
    (hopped,) = await place.found(NOBODY, hop=HOP)
    assert "no way to 10.0.0.1:6443 through the tunnel ([[listen]] 127.0.0.1:6443)" in hopped.text
    assert "edge-agent status" in hopped.remedy
    (untrusted,) = await place.found(ca="other.crt")
    assert "its certificate is not good" in untrusted.text
    assert "[autonomy] ca is the cluster's" in untrusted.remedy


@pytest.mark.parametrize(("status", "level"), [(403, "fault"), (503, "warning")])
async def test_one_that_is_not_ready_or_does_not_know_the_node(place: Place, status: int, level: str) -> None:
    place.kube.answers = {"/readyz": status, "/api/v1/pods": 403}
    ready, _, listed = await place.found()
    assert (ready.level, listed.level) == (level, "fault")


def test_the_clock() -> None:
    assert clock("Sun, 01 Mar 2026 12:00:30 GMT", NOW).level == "good"
    slow = clock("Sun, 01 Mar 2026 12:00:00 GMT", NOW - timedelta(days=3))
    assert (slow.level, "3 days behind the server's" in slow.text) == ("warning", True)
    assert clock(None, NOW).level == clock("yesterday", NOW).level == "warning"


def test_a_machine_that_forgets_the_time(tmp_path: Path) -> None:
    assert [one.about for one in hardware_clock(tmp_path)] == ["clock"]
    assert [one.about for one in hardware_clock(tmp_path / "none")] == ["clock"]
    (tmp_path / "rtc0").touch()
    assert list(hardware_clock(tmp_path)) == []


def pod(name: str, *containers: dict[str, Any], phase: str = "Running", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name}, "status": {"phase": phase},
        "spec": {"containers": list(containers), **more},
    }  # fmt: skip


def container(name: str, image: str, policy: str | None = None) -> dict[str, Any]:
    return {"name": name, "image": image, **({"imagePullPolicy": policy} if policy else {})}


def images(*listed: dict[str, Any]) -> Finding:
    (finding,) = pods("node-7", 200, json.dumps({"items": list(listed)}).encode())
    return finding


@pytest.mark.parametrize(("image", "policy", "is_pulled"), [
    ("web:1.2", "IfNotPresent", False), ("web:1.2", "Always", True), ("web:latest", "Never", False),
    ("web:latest", None, True), ("registry:5000/web", None, True), ("registry:5000/web:1.2", None, False),
    ("web@sha256:00", None, False),
])  # fmt: skip
def test_which_images_are_pulled_at_each_start(image: str, policy: str | None, *, is_pulled: bool) -> None:
    assert (images(pod("web", container("web", image, policy))).level == "warning") is is_pulled


def test_pods_and_containers_are_named() -> None:
    always = container("web", "web:1", "Always")
    found = images(
        pod("first", container("ok", "ok:1"), initContainers=[container("init", "init:1", "Always")]),
        pod("done", always, phase="Succeeded"),
        *(pod(f"more-{number}", always) for number in range(10)),
    )
    assert found.text.startswith("imagePullPolicy Always: shop/first init (init:1), shop/more-0 web (web:1),")
    assert found.text.endswith(" and 1 more")
    assert (
        images(pod("done", always, phase="Failed")).text
        == "none of the node's 1 pods must pull its image to start again"
    )
    assert next(pods("node-7", 200, b"[]")).text == "the list of the node's pods cannot be read"
