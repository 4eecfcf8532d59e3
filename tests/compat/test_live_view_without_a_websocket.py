"""Headlamp's live view asks for watches over WebSocket and was refused; it sends its token among the protocols."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket
import yaml

from tests.compat.fleets import compat_fleet
from tests.support.fleet import TOKEN, Fleet, box, box_node
from tests.support.kubeconfig_files import client_context
from tests.support.waits import eventually, scaled_s

PODS, NODES = "/api/v1/pods?watch=1", "/api/v1/nodes?watch=true"
HEADLAMP = "base64.binary.k8s.io"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with compat_fleet(tmp_path) as running:
        yield running


def _marked(token: str) -> str:
    return "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@contextmanager
def _socket(
    fleet: Fleet, path: str, *protocols: str, certificate: bool = False, origin: str = "https://headlamp.example"
) -> Iterator[websocket.WebSocket]:
    context = client_context(yaml.safe_load(fleet.kubeconfig.read_text()), certificate=certificate)
    made = websocket.create_connection(
        f"wss://127.0.0.1:{fleet.port}{path}", sslopt={"context": context}, subprotocols=list(protocols),
        origin=origin, timeout=scaled_s(10),
    )  # fmt: skip
    try:
        yield made
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


def _next(socket: websocket.WebSocket) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(socket.recv())
    return event


async def test_changes_come_as_they_happen(fleet: Fleet) -> None:
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> list[tuple[str, str]]:
        with _socket(fleet, NODES, HEADLAMP, _marked(TOKEN)) as socket:
            assert socket.getsubprotocol() == HEADLAMP
            seen = [_next(socket) for _ in range(3)]
            loop.call_soon_threadsafe(changed.set)
            seen.append(_next(socket))
            assert seen[0]["object"]["status"]["nodeInfo"]["osImage"]
            return [(event["type"], event["object"]["metadata"]["name"]) for event in seen]

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(asyncio.to_thread(watch))
        async with asyncio.timeout(scaled_s(10)):
            await changed.wait()
        fleet.registry.put(box("box-10", node=box_node()))
    assert watching.result() == [("ADDED", "box-7"), ("ADDED", "box-8"), ("ADDED", "box-9"), ("ADDED", "box-10")]


async def test_a_watch_is_told_by_its_query_as_any_other(fleet: Fleet) -> None:
    def watch() -> list[str]:
        narrowed = f"{PODS}&fieldSelector=metadata.name%3Dbox-8&timeoutSeconds=1"
        with _socket(fleet, narrowed, "x", _marked(TOKEN)) as socket:
            first = _next(socket)
            code = socket.recv_frame()  # type: ignore[no-untyped-call]
            return [first["type"], first["object"]["metadata"]["name"], str(code.opcode)]

    assert await asyncio.to_thread(watch) == ["ADDED", "box-8", str(websocket.ABNF.OPCODE_CLOSE)]


async def test_the_far_past_is_told(fleet: Fleet) -> None:
    def watch() -> tuple[str, int]:
        with _socket(fleet, f"{NODES}&resourceVersion=1", "x", _marked(TOKEN)) as socket:
            gone = _next(socket)
            return gone["type"], gone["object"]["code"]

    assert await asyncio.to_thread(watch) == ("ERROR", 410)


async def test_strangers_and_other_sites_pages_are_refused(fleet: Fleet) -> None:
    def refusals() -> list[int]:
        codes = []
        for protocols, certificate in (
            ((HEADLAMP, _marked("guessed")), False),
            ((_marked(TOKEN),), False),  # nothing is left to answer with
            ((HEADLAMP,), True),  # a page of another site, and the browser has the certificate
        ):
            with pytest.raises(websocket.WebSocketBadStatusException) as refused:
                with _socket(fleet, PODS, *protocols, certificate=certificate):
                    pass
            codes.append(refused.value.status_code)
        with _socket(fleet, PODS, HEADLAMP, certificate=True, origin=fleet.url) as socket:
            assert _next(socket)["type"] == "ADDED"
        return codes

    assert await asyncio.to_thread(refusals) == [401, 401, 403]


async def test_a_client_that_leaves_is_let_go(fleet: Fleet) -> None:
    def leave() -> None:
        for graceful in (True, False):
            with _socket(fleet, PODS, HEADLAMP, _marked(TOKEN)) as socket:
                _next(socket)
                socket.ping("still there")
                while socket.recv_frame().opcode != websocket.ABNF.OPCODE_PONG:  # type: ignore[no-untyped-call]
                    pass
                if graceful:
                    socket.close()

    await asyncio.to_thread(leave)
    await eventually(
        lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("watch")],
        what="nobody is watched for any more",
    )
