"""What is answered from what is kept is what the API server would have answered, and what cannot be kept passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.autonomy.answering import answers
from edge_agent.autonomy.kept.feed import Feed
from edge_agent.autonomy.upward import uplink
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually, sooner_than

PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn"
FIRST = f"{PODS}&limit=500&resourceVersion=0"
PROTOBUF_OR_JSON = "application/vnd.kubernetes.protobuf,application/json"


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(answers, "NEWER_WAIT_S", 0.1)
    async with node_and_kube(tmp_path) as made:
        await made.kube.put("pods", "one", "ns", status={"phase": "Pending"})
        yield made


def watch_list(version: str = "") -> str:
    options = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    return f"{PODS}&{options}&resourceVersion={version}"


def the_feed(node: Node) -> Feed:
    (feed,) = node.api.feeds.all
    return feed


async def test_a_list_without_versions_passes_at_once(node: Node) -> None:
    """As those of metrics: client-go asks for any version of them, as of all."""
    node.kube.unversioned.add("things")
    with sooner_than(5, "a list that cannot be kept"):
        for _ in range(2):
            head, said = await node.ask("GET", "/apis/metrics.test/v1/things?resourceVersion=0")
            assert (head.status, said["metadata"]) == (200, {})
    assert "cannot be kept" in the_feed(node).trouble


@pytest.mark.parametrize("status", [405, 406])
async def test_what_cannot_be_watched_is_not_kept(node: Node, status: int) -> None:
    node.kube.watch_status = status
    await node.names(FIRST)
    await eventually(lambda: str(status) in the_feed(node).trouble)
    await node.kube.put("pods", "two", "ns")
    assert await node.names(FIRST) == ["one", "two"], "no old list is shown for ever"


async def test_custom_resources_are_asked_for_in_the_encoding_that_they_have(node: Node) -> None:
    await node.ask("GET", "/apis/longline.test/v1/things?resourceVersion=0", accept=PROTOBUF_OR_JSON)
    assert the_feed(node).scope.encoding == "json"


async def test_a_version_that_has_not_come_here_is_asked_for(node: Node) -> None:
    await node.names(FIRST)
    await node.kube.put("services", "s", "ns")  # the version goes on, and nothing says so to the scope of pods
    assert the_feed(node).replica.version == node.kube.version - 1
    assert await node.names(f"{PODS}&resourceVersion={node.kube.version}") == ["one"]
    assert node.kube.counts()["/api/v1/pods"] == 2
    async with node.watching(watch_list(str(node.kube.version))) as following:
        assert (await following())["object"]["metadata"]["name"] == "one"
    assert any("sendInitialEvents" in target for target in node.kube.seen)


async def test_the_newest_state_is_watched_from_a_stream_that_runs(node: Node) -> None:
    async with node.watching(watch_list()) as following:
        assert (await following())["object"]["metadata"]["name"] == "one"
    assert not any("sendInitialEvents" in target for target in node.kube.seen)
    node.kube.watch_status = 500
    for conn in tuple(node.kube.connections):
        conn.reset()
    await eventually(lambda: node.api.uplink.is_up and not the_feed(node).is_live)
    await node.kube.put("pods", "two", "ns")
    async with node.watching(watch_list()) as following:
        assert [(await following())["object"]["metadata"]["name"] for _ in range(2)] == ["one", "two"]


async def test_a_watch_from_before_the_agent_started_goes_on_at_the_api_server(node: Node) -> None:
    await node.names(FIRST)
    before = node.kube.version
    await node.kube.put("pods", "two", "ns")
    await eventually(lambda: len(the_feed(node).replica) == 2)
    await node.restart()
    await node.until_up()
    async with node.watching(f"{PODS}&watch=1&resourceVersion={before}") as following:
        assert (await following())["object"]["metadata"]["name"] == "two"


async def test_a_refusal_of_an_api_server_that_starts_ends_no_watch(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.names(FIRST)
    async with node.watching(f"{PODS}&watch=1&resourceVersion={node.kube.version}") as following:
        node.kube.cut()
        node.api.uplink.doubt()
        await node.until_away()
        node.kube.answers["/api"] = 403  # it knows nobody's rights yet
        node.kube.gone = False
        seen = len(node.kube.seen)
        await eventually(lambda: any("watch" in target for target in node.kube.seen[seen:]), 10)
        node.kube.answers.clear()
        await node.kube.put("pods", "two", "ns")
        assert (await following())["object"]["metadata"]["name"] == "two"
        monkeypatch.setattr(uplink, "STARTING_S", 0.0)
        node.kube.answers["/api"] = 403
        for conn in tuple(node.kube.connections):
            conn.reset()
        assert await following() is None, "later it is believed"
    assert the_feed(node).refused is not None
