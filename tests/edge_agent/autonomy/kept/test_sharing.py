"""What several components of a node want is followed once, and each sees of it what it asks for and may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.autonomy.answering import callers as callers_module
from edge_agent.autonomy.asks import Ask, read_ask
from edge_agent.autonomy.kept import sharing
from edge_agent.autonomy.kept.sharing import SharedReader, part_of, shared_scope
from tests.edge_agent.autonomy.answering.test_callers import DNS, PROXY, as_, token
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.edge_agent.autonomy.test_asks import KUBELET, info_of, scope
from tests.support.waits import eventually
from tunnel.core.wire.errors import StreamError
from tunnel.kubeapi.codecs import JSON, PROTOBUF
from tunnel.kubeapi.wire_scan import length_delimited

READER = "system:serviceaccount:longline:node-reader"
PLAIN = "/api/v1/services?resourceVersion=0"
KUBELETS = "/api/v1/services?fieldSelector=spec.clusterIP!%3DNone&resourceVersion=0"
PROXYS = f"{KUBELETS}&labelSelector=!service.kubernetes.io/headless"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    path = tmp_path / "reader.token"
    path.write_text(f"{token(READER)}\n")
    async with node_and_kube(tmp_path, shared_token=path) as made:
        kube = made.kube
        await kube.put("services", "web", "ns", spec={"clusterIP": "10.0.0.1"})
        await kube.put("services", "db", "ns", spec={"clusterIP": "None"})
        labelled = await kube.put("services", "old", "ns", spec={"clusterIP": "10.0.0.2"})
        labelled["metadata"]["labels"] = {"service.kubernetes.io/headless": ""}
        kube.users = {token(PROXY): PROXY, token(DNS): DNS, token(READER): READER}
        kube.rights = {PROXY: {"services"}, DNS: {"services", "pods"}, READER: {"services"}}
        yield made


async def all_three(node: Node) -> list[list[str]]:
    """What kubelet, kube-proxy and CoreDNS see of the Services."""
    return [
        await node.names(KUBELETS),
        await node.names(PROXYS, authorization=as_(PROXY)),
        await node.names(PLAIN, authorization=as_(DNS)),
    ]


SEEN = [["old", "web"], ["web"], ["db", "old", "web"]]


async def test_one_stream_serves_all(node: Node) -> None:
    assert await all_three(node) == SEEN
    counts = node.kube.counts()
    assert (counts["/api/v1/services"], counts["watch /api/v1/services"]) == (1, 1)
    await node.cut()
    assert await all_three(node) == SEEN
    await node.restart()
    assert await all_three(node) == SEEN


async def test_a_watch_sees_objects_come_into_its_part_and_leave_it(node: Node) -> None:
    await node.names(PROXYS)
    async with node.watching(f"{PROXYS.replace('resourceVersion=0', '')}&watch=1&resourceVersion=103") as following:
        await node.kube.put("services", "db", "ns", spec={"clusterIP": "10.0.0.3"})
        event = await following()
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "db")
        await node.kube.put("services", "other", "ns", spec={"clusterIP": "None"})
        await node.kube.put("services", "web", "ns", spec={"clusterIP": "None"})
        event = await following()
        assert (event["type"], event["object"]["spec"]) == ("DELETED", {"clusterIP": "10.0.0.1"})
        assert event["object"]["metadata"]["resourceVersion"] == str(node.kube.version)


async def test_who_may_not_see_it_sees_nothing_of_it(node: Node) -> None:
    await all_three(node)
    node.kube.users[token("eve")] = "eve"
    node.kube.rights["eve"] = set()
    assert (await node.ask("GET", PLAIN, authorization=as_("eve")))[0].status == 403
    await node.cut()
    assert (await node.ask("GET", PLAIN, authorization=as_("eve")))[0].status == 503
    other = f"{PLAIN}&labelSelector=a"  # of what it saw it may see another part, but this was not proved
    assert (await node.ask("GET", other, authorization=as_(DNS)))[0].status == 503


async def test_the_node_is_shown_it_only_if_it_may_see_it(node: Node) -> None:
    await node.names(PLAIN, authorization=as_(DNS))
    node.kube.node_rights = set()
    assert await node.names(PLAIN) == SEEN[2]
    assert node.kube.counts()["/api/v1/services"] == 2, "asked in its own name"


async def test_a_watch_ends_when_the_node_may_not_see_it_any_more(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers_module, "RECHECK_S", 0.0)
    monkeypatch.setattr("edge_agent.autonomy.answering.kept_answers.LOOK_S", 0.2)
    await node.names(PLAIN)
    async with node.client() as http:
        head = await http.request("GET", f"{PLAIN}&watch=1", [("host", "x")])
        assert head.status == 200
        node.kube.node_rights = set()
        with pytest.raises(StreamError):
            await http.read_body(1 << 20)


async def test_without_the_right_of_the_reader_each_has_its_own(node: Node) -> None:
    node.kube.rights[READER] = set()
    assert await all_three(node) == SEEN
    assert node.kube.counts()["/api/v1/services"] == 4, "the reader's was refused"
    await node.cut()
    assert await all_three(node) == SEEN


async def test_streams_of_their_own_end_once_there_is_one_for_all(tmp_path: Path, node: Node) -> None:
    path = tmp_path / "reader.token"
    kept = path.read_text()
    path.write_text("no token")
    await node.restart()
    await node.until_up()
    assert await all_three(node) == SEEN
    assert "no bearer token" in str(node.api.as_json()["trouble"])
    assert {feed.scope.who for feed in node.api.feeds.all} == {"node", PROXY, DNS}
    path.write_text(kept)
    await node.restart()
    await node.until_up()
    assert await all_three(node) == SEEN
    assert [feed.scope.who for feed in node.api.feeds.all] == ["shared"]
    assert node.api.as_json()["trouble"] is None


async def test_a_token_that_comes_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "AGAIN_S", 0.01)
    reader = SharedReader(tmp_path / "token")
    await reader.look()
    assert not reader.is_usable
    assert "No such file" in reader.trouble
    (tmp_path / "token").write_text("abc\n")
    await reader.there()
    assert reader.headers() == [("authorization", "Bearer abc")]
    (tmp_path / "token").write_text("a\nb")
    await reader.look()
    assert not reader.is_usable


async def test_a_new_token_is_used_for_the_next_watch(node: Node, tmp_path: Path) -> None:
    await node.names(PLAIN)
    (tmp_path / "reader.token").write_text(token(READER, n=2))
    node.kube.users[token(READER, n=2)] = READER
    del node.kube.users[token(READER)]
    node.kube.cut()
    node.kube.gone = False
    await node.kube.put("services", "more", "ns", spec={})
    await eventually(lambda: any("more" in str(feed.replica.items(lambda _: True)) for feed in node.api.feeds.all))


def ask(target: str) -> Ask:
    info, query = info_of(target)
    found = read_ask(info, query, KUBELET, "node", is_node=True)
    assert found is not None
    return found


@pytest.mark.parametrize("target", ["/api/v1/namespaces/a/services", "/api/v1/nodes", "/api/v1/secrets",
                                    "/api/v1/services?fieldSelector=metadata.name%3Da",
                                    "/apis/example.org/v1/services"])  # fmt: skip
def test_what_is_one_components_own_is_not_shared(target: str) -> None:
    assert shared_scope(scope(target)) is None


@pytest.mark.parametrize("selector", ["fieldSelector=spec.other%3Da", "fieldSelector=status.phase%3Da",
                                      "labelSelector=%28", "fieldSelector=a"])  # fmt: skip
def test_a_selector_that_is_not_understood_is_the_api_servers(selector: str) -> None:
    assert part_of(ask(f"/api/v1/services?{selector}")) is None


def test_fields_are_read_in_both_encodings() -> None:
    metadata = length_delimited(1, length_delimited(1, b"web") + length_delimited(6, b"7"))
    typed = metadata + length_delimited(2, length_delimited(3, b"None") + length_delimited(4, b"ClusterIP"))
    in_protobuf = PROTOBUF.read_item(typed)
    text = b'{"metadata":{"name":"web","resourceVersion":"7"},"spec":{"clusterIP":"None","type":"ClusterIP"}}'
    in_json = JSON.read_item(text)
    for item, accept in ((in_protobuf, KUBELET), (in_json, "application/json")):
        for selector, is_picked in (
            ("spec.clusterIP!%3DNone", False), ("spec.clusterIP%3DNone", True), ("spec.type%3DClusterIP", True),
            ("metadata.name!%3Dweb", False), ("metadata.namespace%3D", True),
        ):  # fmt: skip
            info, query = info_of(f"/api/v1/services?fieldSelector={selector}")
            found = read_ask(info, query, accept, "node", is_node=True)
            assert found is not None
            part = part_of(found)
            assert part is not None
            assert part.selects(item) is is_picked, (selector, accept)


async def test_a_node_that_is_refused_sees_what_it_might_see_and_asks_no_more(node: Node) -> None:
    assert await node.names(KUBELETS) == SEEN[0]
    node.kube.refuses_node = True
    await eventually(lambda: node.api.standing.is_refused)
    asked = node.kube.counts()[callers_module.ACCESS]
    for _ in range(3):
        assert await node.names(KUBELETS) == SEEN[0]
    assert node.kube.counts()[callers_module.ACCESS] == asked
