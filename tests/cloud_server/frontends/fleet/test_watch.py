"""Watches on the wire: what a client that is no kubectl may ask for."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager

import pytest

from tests.support.fleet import TOKEN, Fleet, box, box_node
from tests.support.fleet_watch import Watch, watching
from tests.support.waits import eventually, scaled_s
from tunnel.aio.sockets.conn import Conn
from tunnel.kubeapi import watch as watch_module

pytestmark = pytest.mark.timeout(60)
AUTH = ("authorization", f"Bearer {TOKEN}")


def _asking(fleet: Fleet, target: str, *headers: tuple[str, str]) -> AbstractAsyncContextManager[Watch]:
    return watching(fleet, target, AUTH, *headers)


async def _version(fleet: Fleet, path: str = "/api/v1/nodes") -> str:
    async with _asking(fleet, path) as answer:
        body = json.loads(await answer._http.read_body(1 << 20))
        return str(body["metadata"]["resourceVersion"])


async def test_without_a_version_it_begins_with_what_there_is(fleet: Fleet) -> None:
    async with _asking(fleet, "/api/v1/nodes?watch=1") as watch:
        assert await watch.names(3) == [("ADDED", "box-7"), ("ADDED", "box-8"), ("ADDED", "box-9")]
        fleet.registry.put(box("box-a"))
        assert await watch.names(1) == [("ADDED", "box-a")]


async def test_with_a_version_it_begins_behind_it(fleet: Fleet) -> None:
    version = await _version(fleet)
    fleet.registry.change("box-8", connected=True)
    fleet.registry.remove("box-9")
    async with _asking(fleet, f"/api/v1/nodes?watch=1&resourceVersion={version}") as watch:
        assert await watch.names(2) == [("MODIFIED", "box-8"), ("DELETED", "box-9")]


async def test_a_selector_makes_objects_come_and_go(fleet: Fleet) -> None:
    version = await _version(fleet)
    target = f"/api/v1/nodes?watch=1&labelSelector=longline%2Fsite%3Dnorth&resourceVersion={version}"
    async with _asking(fleet, target) as watch:
        fleet.registry.change("box-8", node=box_node(site="north"))
        fleet.registry.change("box-9", version="9")
        fleet.registry.change("box-8", node=box_node(site="south"))
        fleet.registry.change("box-7", version="8")
        assert await watch.names(3) == [("ADDED", "box-8"), ("DELETED", "box-8"), ("MODIFIED", "box-7")]


async def test_pods_of_a_namespace_and_of_one_name(fleet: Fleet) -> None:
    target = "/api/v1/namespaces/default/pods?watch=1&fieldSelector=metadata.name%3Dbox-7"
    async with _asking(fleet, target) as watch:
        assert await watch.names(1) == [("ADDED", "box-7")]
        fleet.registry.change("box-8", connected=True)
        fleet.registry.change("box-7", connected=False)
        kind, pod = await watch.next()
        assert (kind, pod["status"]["reason"]) == ("MODIFIED", "AgentAway")
    async with _asking(fleet, "/api/v1/namespaces/kube-system/pods?watch=1&timeoutSeconds=1") as watch:
        await watch.end()


async def test_rows_name_their_columns_once(fleet: Fleet) -> None:
    accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
    async with _asking(fleet, "/api/v1/nodes?watch=1", accept) as watch:
        _, first = await watch.next()
        _, second = await watch.next()
        assert first["kind"] == "Table"
        assert [row["cells"][0] for table in (first, second) for row in table["rows"]] == ["box-7", "box-8"]
        assert [len(table["columnDefinitions"]) for table in (first, second)] == [10, 0]


@pytest.mark.parametrize("version", ["1", "99999999999999999"])
async def test_a_version_of_another_time_is_410(fleet: Fleet, version: str) -> None:
    async with _asking(fleet, f"/api/v1/nodes?watch=1&resourceVersion={version}") as watch:
        kind, status = await watch.next()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        await watch.end()


async def test_initial_events_end_with_a_bookmark(fleet: Fleet) -> None:
    target = "/api/v1/nodes?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with _asking(fleet, target) as watch:
        assert [(await watch.next())[0] for _ in range(3)] == ["ADDED"] * 3
        kind, bookmark = await watch.next()
        assert (kind, bookmark["kind"]) == ("BOOKMARK", "Node")
        assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    version = bookmark["metadata"]["resourceVersion"]
    async with _asking(fleet, f"/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion={version}") as watch:
        await watch.end()


async def test_a_quiet_watch_sends_bookmarks_if_they_were_asked_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "QUIET_S", 0.05)
    version = await _version(fleet)
    target = f"/api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion={version}"
    async with _asking(fleet, target) as watch:
        assert [(await watch.next())[0] for _ in range(3)] == ["BOOKMARK"] * 3


async def test_a_quiet_watch_sends_blanks_otherwise(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "QUIET_S", 0.05)
    async with _asking(fleet, f"/api/v1/nodes?watch=1&resourceVersion={await _version(fleet)}") as watch:
        async with asyncio.timeout(scaled_s(10)):
            quiet = [await watch._http.read_chunk() for _ in range(3)]
        assert b"".join(quiet).strip(b" ") == b""
        fleet.registry.change("box-8", connected=True)
        assert await watch.names(1) == [("MODIFIED", "box-8")]


async def test_a_watch_ends_in_time_and_its_connection_goes_on(fleet: Fleet) -> None:
    async with _asking(
        fleet, "/api/v1/namespaces?watch=1&timeoutSeconds=1&resourceVersion=" + await _version(fleet)
    ) as (watch):
        await watch.end()
        response = await watch._http.request("GET", "/version", [("host", "fleet"), AUTH])
        assert response.status == 200
        await watch._http.read_body(1 << 20)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_goes_leaves_nothing(fleet: Fleet, how: str) -> None:
    def watching() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "answer"]

    async with _asking(fleet, "/api/v1/nodes?watch=1") as watch:
        await watch.next()
        await eventually(watching)
        if how == "reset":
            watch.conn.reset()
    await eventually(lambda: not watching(), what="the watch ended")


async def test_a_client_that_reads_nothing_stops_nobody(fleet: Fleet) -> None:
    async with _asking(fleet, "/api/v1/nodes?watch=1") as stalled, _asking(fleet, "/api/v1/nodes?watch=1") as watch:
        stalled.conn.transport.pause_reading()
        await watch.names(3)
        for number in range(3000):
            fleet.registry.change("box-7", version=f"v{number}")
            if number % 100 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(scaled_s(30)):
            while (await watch.next())[1]["status"]["nodeInfo"]["kubeletVersion"] != "v2999":
                pass


async def test_a_client_that_speaks_no_tls_is_cut(fleet: Fleet) -> None:
    _, conn = await asyncio.get_running_loop().create_connection(Conn, "127.0.0.1", fleet.port)
    await conn.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(scaled_s(10)):
        while await conn.read():
            pass  # an alert
    await conn.aclose()
    await conn.lost()
