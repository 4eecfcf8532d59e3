"""What a node's components are answered, with the API server there, silent, in trouble, gone, and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.autonomy.answering import answers
from edge_agent.autonomy.kept.disk import ScopeWrite, Stored
from edge_agent.autonomy.kept.feeds import KeptLimits
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.writing import offline_writes
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually, sooner_than

PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn"
MERGE = "application/merge-patch+json"
FIRST = f"{PODS}&limit=500&resourceVersion=0"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with node_and_kube(tmp_path) as made:
        await made.kube.put("nodes", "n", status={"phase": "Running"})
        await made.kube.put("pods", "one", "ns", status={"phase": "Pending"})
        await made.kube.put("pods", "two", "ns")
        yield made


def watch(version: str, **more: str) -> str:
    options = "".join(f"&{name}={value}" for name, value in more.items())
    return f"{PODS}&watch=true&resourceVersion={version}{options}"


# Lists and single objects


async def test_a_list_of_any_version_is_fetched_once_for_all(node: Node) -> None:
    for _ in range(3):
        assert await node.names(FIRST) == ["one", "two"]
    await node.names(watchless := f"{PODS}&resourceVersion=0")
    assert watchless != FIRST
    assert node.kube.counts()["/api/v1/pods"] == 1
    assert node.kube.counts()["watch /api/v1/pods"] == 1


async def test_the_newest_and_pages_are_the_api_servers(node: Node) -> None:
    await node.names(FIRST)
    options = ("", "&limit=1", "&resourceVersion=100&resourceVersionMatch=Exact", "&limit=1&continue=x",
               "&resourceVersion=0&pretty=1")  # fmt: skip
    for number, target in enumerate((f"{PODS}{option}" for option in options), 2):
        await node.names(target)
        assert node.kube.counts()["/api/v1/pods"] == number, target


async def test_a_list_not_older_than_waits_for_its_version(node: Node) -> None:
    await node.names(FIRST)
    await node.kube.put("pods", "three", "ns")
    assert await node.names(f"{PODS}&resourceVersion={node.kube.version}") == ["one", "three", "two"]
    assert node.kube.counts()["/api/v1/pods"] == 1
    await node.cut()
    head, said = await node.ask("GET", f"{PODS}&resourceVersion={node.kube.version + 1}")
    assert (head.status, said["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    assert head.headers.get("retry-after") is None


async def test_without_the_cloud_what_was_listed_as_a_whole_is_answered_and_nothing_else(node: Node) -> None:
    await node.names(FIRST)
    await node.cut()
    for target in (FIRST, PODS, f"{PODS}&limit=1"):
        head, said = await node.ask("GET", target)
        assert [item["metadata"]["name"] for item in said["items"]] == ["one", "two"]
        assert "is not reached since" in (head.headers.get("warning") or "")
    for target in ("/api/v1/pods", "/api/v1/services", "/api/v1/namespaces/ns/pods/none", "/api/v1/nodes/n", "/version",
                   "/api/v1/pods?watch=1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dother"):  # fmt: skip
        head, said = await node.ask("GET", target)
        assert (head.status, said["reason"]) == (503, "ServiceUnavailable"), target
        assert "is not reached since" in said["message"]
        assert head.headers.get("retry-after") is None
    head, said = await node.ask("GET", "/api/v1/namespaces/ns/pods/one")
    assert (head.status, said["kind"], said["metadata"]["name"]) == (200, "Pod", "one")


async def test_an_empty_list_is_as_good_as_a_full_one_if_it_was_whole(node: Node) -> None:
    drivers = "/apis/storage.k8s.io/v1/csidrivers"
    assert await node.names(f"{drivers}?resourceVersion=0") == []
    await node.cut()
    assert await node.names(drivers) == []


async def test_a_gone_object_of_a_whole_list_is_not_found(node: Node) -> None:
    one = "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Ds&resourceVersion=0"
    assert await node.names(one) == []
    await node.cut()
    head, said = await node.ask("GET", "/api/v1/namespaces/ns/secrets/s")
    assert (head.status, said["details"]) == (404, {"name": "s", "kind": "secrets"})
    assert (await node.ask("GET", "/api/v1/namespaces/ns/secrets/t"))[0].status == 503


async def test_what_is_asked_for_one_by_one_is_kept_as_it_was_last(node: Node) -> None:
    csinode = "/apis/storage.k8s.io/v1/csinodes/n"
    assert (await node.ask("GET", csinode))[0].status == 404
    await node.kube.put("csinodes", "n", spec={"drivers": []})
    assert (await node.ask("GET", csinode))[0].status == 200
    await node.cut()
    await node.restart()
    head, said = await node.ask("GET", csinode)
    assert (head.status, said["spec"]) == (200, {"drivers": []})


async def test_a_silent_api_server_is_not_waited_for_where_the_answer_is_kept(node: Node) -> None:
    await node.names(FIRST)
    node.kube.silent = True
    with sooner_than(9.0, "an answer of what is kept"):
        head, _ = await node.ask("GET", PODS)
    assert head.status == 200
    assert "has not answered" in (head.headers.get("warning") or "")
    await node.until_away()
    with sooner_than(2.0, "an answer while it is away"):
        assert (await node.ask("GET", "/api/v1/services"))[0].status == 503


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_api_server_in_trouble_is_as_good_as_away(node: Node, status: int) -> None:
    await node.names(FIRST)
    node.kube.answers["/api"] = status
    head, _ = await node.ask("GET", PODS)
    assert head.status == 200
    assert str(status) in (head.headers.get("warning") or "")
    assert (await node.ask("GET", "/api/v1/services"))[0].status == status, "what is not kept is as it says"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_is_the_truth(node: Node, status: int) -> None:
    node.kube.answers["/api"] = status
    assert (await node.ask("GET", FIRST))[0].status == status
    node.kube.answers.clear()
    await eventually(lambda: node.kube.counts()["watch /api/v1/pods"], 10)
    assert await node.names(FIRST) == ["one", "two"]


# Watches


async def test_a_watch_hears_what_happens_through_a_cut_and_nothing_twice(node: Node) -> None:
    await node.names(FIRST)
    async with node.watching(watch(str(node.kube.version))) as following:
        await node.kube.put("pods", "three", "ns")
        assert (await following())["object"]["metadata"]["name"] == "three"
        await node.cut()
        await node.kube.put("pods", "one", "ns", status={"phase": "Running"})
        await node.kube.remove("pods", "two", "ns")
        node.kube.gone = False
        told = [await following() for _ in range(2)]
        assert [(one["type"], one["object"]["metadata"]["name"]) for one in told] == [
            ("MODIFIED", "one"), ("DELETED", "two"),
        ]  # fmt: skip
        assert told[1]["object"]["metadata"]["resourceVersion"] == str(node.kube.version)
    assert node.kube.counts()["/api/v1/pods"] == 1, "it goes on where it was"


async def test_when_the_past_is_forgotten_only_what_differs_is_told(node: Node) -> None:
    await node.names(FIRST)
    async with node.watching(watch(str(node.kube.version))) as following:
        await node.cut()
        await node.kube.put("pods", "three", "ns")
        await node.kube.remove("pods", "two", "ns")
        node.kube.forget()
        node.kube.gone = False
        told = [await following() for _ in range(2)]
        assert [(one["type"], one["object"]["metadata"]["name"]) for one in told] == [
            ("ADDED", "three"), ("DELETED", "two"),
        ]  # fmt: skip
    assert node.kube.counts()["/api/v1/pods"] == 2


async def test_a_watch_without_a_version_begins_with_all(node: Node) -> None:
    async with node.watching(watch("0")) as following:
        assert [(await following())["object"]["metadata"]["name"] for _ in range(2)] == ["one", "two"]
        await node.kube.put("pods", "three", "ns")
        assert (await following())["type"] == "ADDED"


async def test_a_watch_list_ends_its_beginning_with_a_bookmark(node: Node) -> None:
    target = watch("", sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true")
    async with node.watching(target) as following:
        told = [await following() for _ in range(3)]
    assert [one["type"] for one in told] == ["ADDED", "ADDED", "BOOKMARK"]
    assert told[2]["object"]["kind"] == "Pod"
    assert told[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert (await node.ask("GET", watch("", sendInitialEvents="true")))[0].status == 422


async def test_a_watch_from_a_version_that_is_not_known_is_gone(node: Node) -> None:
    await node.names(FIRST)
    async with node.watching(watch("5")) as following:
        told = await following()
        assert (told["type"], told["object"]["code"], told["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await following() is None
    await node.cut()
    async with node.watching(watch(str(node.kube.version + 5))) as following:
        assert (await following())["object"]["code"] == 410, "nobody knows what happened up to there"


async def test_a_watch_of_a_list_by_the_api_server_goes_on_behind_it(node: Node) -> None:
    await node.names(FIRST)
    await node.kube.put("services", "s", "ns")  # the version goes on, and the scope of pods hears nothing of it
    async with node.watching(watch(str(node.kube.version))) as following:
        await node.kube.put("pods", "three", "ns")
        assert (await following())["object"]["metadata"]["name"] == "three"


async def test_a_watch_ends_in_time_with_a_bookmark_before(node: Node) -> None:
    await node.names(FIRST)
    target = watch(str(node.kube.version), allowWatchBookmarks="true", timeoutSeconds="3")
    async with node.watching(target) as following:
        told = await following()
        assert (told["type"], told["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", str(node.kube.version))
        assert await following() is None


# The disk


async def test_a_restart_without_the_cloud_has_all_that_was_known(node: Node) -> None:
    await node.names(FIRST)
    await node.kube.put("pods", "three", "ns")
    await eventually(lambda: any(len(feed.replica) == 3 for feed in node.api.feeds.all))
    await node.cut()
    await node.restart()
    assert await node.names(PODS) == ["one", "three", "two"]
    node.kube.gone = False
    await node.kube.remove("pods", "one", "ns")
    await node.until_up()
    await eventually(lambda: any(len(feed.replica) == 2 for feed in node.api.feeds.all))
    assert node.kube.counts()["/api/v1/pods"] == 1, "it has gone on where it was"


async def test_what_is_too_large_passes_by_and_is_said_to_be(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path, KeptLimits(scope_bytes=4000)) as node:
        await node.kube.put("pods", "one", "ns", spec={"text": "x" * 5000})
        assert await node.names(FIRST) == ["one"]
        (feed,) = node.api.feeds.all
        assert not feed.is_complete
        assert "more than 4000 bytes" in feed.trouble
        await node.cut()
        assert (await node.ask("GET", PODS))[0].status == 503


async def test_when_there_is_no_room_the_rest_passes_by(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path, KeptLimits(scopes=1)) as node:
        await node.names(FIRST)
        assert await node.names("/api/v1/services?resourceVersion=0") == []
        assert [scope.resource for scope in node.api.feeds.passed] == ["services"]
        await node.cut()
        assert (await node.ask("GET", "/api/v1/services"))[0].status == 503


async def test_secrets_are_not_on_the_disk_in_clear(node: Node) -> None:
    secret = "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Ds&resourceVersion=0"
    await node.kube.put("secrets", "s", "ns", data={"word": "eHl6enk="})
    assert await node.names(secret) == ["s"]
    await node.cut()
    await node.restart()
    assert await node.names(secret) == ["s"]
    for path in node.folder.glob("autonomy.db*"):
        assert b"eHl6enk=" not in path.read_bytes()


async def test_what_cannot_be_written_is_answered_and_said_not_to_be_kept(node: Node) -> None:
    await node.names(FIRST)
    disk = node.api.keeper._disk
    assert disk is not None
    disk._database.execute("PRAGMA query_only = 1")
    await node.kube.put("pods", "three", "ns")
    (feed,) = node.api.feeds.all
    await eventually(lambda: len(feed.replica) == 3)
    assert not feed.is_kept
    assert "cannot be written" in feed.trouble
    disk._database.execute("PRAGMA query_only = 0")
    await node.kube.put("pods", "four", "ns")
    await eventually(lambda: feed.is_kept)
    await node.cut()
    await node.restart()
    assert await node.names(PODS) == ["four", "one", "three", "two"], "as a whole, and not only what changed last"


# Writes


async def test_a_status_is_taken_shown_and_told_when_the_cloud_is_back(node: Node) -> None:
    await node.names(FIRST)
    async with node.watching(watch(str(node.kube.version))) as following:
        await node.cut()
        patch = {"metadata": {"uid": node.kube.objects["pods", "ns", "one"]["metadata"]["uid"]},
                 "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}  # fmt: skip
        path, kind = "/api/v1/namespaces/ns/pods/one/status", "application/strategic-merge-patch+json"
        head, said = await node.ask("PATCH", path, json.dumps(patch).encode(), content_type=kind)
        assert (head.status, said["status"]["phase"]) == (202, "Running")
        told = await following()
        assert (told["type"], told["object"]["status"]["phase"]) == ("MODIFIED", "Running")
    await node.restart()
    _, said = await node.ask("GET", "/api/v1/namespaces/ns/pods/one")
    assert said["status"]["phase"] == "Running"
    async with node.watching(watch(str(node.kube.version))) as following:
        assert (await following())["object"]["code"] == 410, "whether it heard of the change cannot be known"
    node.kube.gone = False
    await eventually(lambda: node.kube.writes, 10)
    method, path, body = node.kube.writes[0]
    assert (method, path, json.loads(body)) == ("PATCH", path, patch)
    await eventually(lambda: not node.api.writes.statuses)


async def test_a_status_of_another_pod_of_that_name_is_a_conflict(node: Node) -> None:
    await node.names(FIRST)
    await node.cut()
    patch = json.dumps({"metadata": {"uid": "other"}, "status": {"phase": "Failed"}}).encode()
    head, said = await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", patch,
                                content_type="application/strategic-merge-patch+json")  # fmt: skip
    assert (head.status, said["reason"]) == (409, "Conflict")
    assert (await node.ask("PATCH", "/api/v1/namespaces/ns/pods/none/status", b"{}"))[0].status == 503


async def test_what_the_kubelet_tells_itself_comes_behind_what_waits(node: Node) -> None:
    """It says what differs from what it was shown here: the API server would have the rest as old."""
    await node.names(FIRST)
    await node.cut()
    path, kind = "/api/v1/namespaces/ns/pods/one/status", "application/merge-patch+json"
    await node.ask("PATCH", path, b'{"status":{"phase":"Running"}}', content_type=kind)
    assert len(node.api.writes.statuses) == 1
    node.kube.answers["/api/v1/namespaces"] = 503
    node.kube.gone = False
    await node.until_up()
    assert (await node.ask("PATCH", path, b'{"status":{"phase":"X"}}', content_type=kind))[0].status == 503
    assert len(node.api.writes.statuses) == 1, "it was not told yet"
    node.kube.answers.clear()
    await node.ask("PATCH", path, b'{"status":{"phase":"Succeeded"}}', content_type=kind)
    assert not node.api.writes.statuses
    assert [json.loads(body)["status"] for _, _, body in node.kube.writes] == [
        {"phase": "Running"},
        {"phase": "Succeeded"},
    ]


async def test_events_wait_on_the_disk_and_keep_their_order(node: Node) -> None:
    await node.cut()
    path = "/api/v1/namespaces/ns/events"
    for number in range(3):
        event = {"kind": "Event", "metadata": {"name": f"e{number}"}, "message": "x"}
        head, said = await node.ask("POST", path, json.dumps(event).encode(), content_type="application/json")
        assert (head.status, said) == (202, event)
    assert (await node.ask("PATCH", f"{path}/e1", b"{}"))[0].status == 404
    assert (await node.ask("POST", path, b"{}", content_type="application/json"))[0].status == 400
    await node.restart()
    node.kube.gone = False
    await eventually(lambda: len(node.kube.writes) == 3, 10)
    assert [json.loads(body)["metadata"]["name"] for _, _, body in node.kube.writes] == ["e0", "e1", "e2"]
    await eventually(lambda: not node.api.writes.events)


async def test_an_event_that_is_there_already_is_replaced(node: Node) -> None:
    await node.cut()
    event = json.dumps({"metadata": {"name": "e"}}).encode()
    await node.ask("POST", "/api/v1/namespaces/ns/events", event, content_type="application/json")
    node.kube.answers["/api/v1/namespaces/ns/events"] = 409
    node.kube.gone = False
    await eventually(lambda: "PUT /api/v1/namespaces/ns/events/e" in node.kube.seen, 10)


async def test_a_token_is_handed_out_again_for_the_same_request(node: Node) -> None:
    path, asked = "/api/v1/namespaces/ns/serviceaccounts/sa/token", b'{"spec":{"audiences":["a"]}}'
    for body in (asked, b'{"spec":{"audiences":["b"]}}'):
        assert (await node.ask("POST", path, body, content_type="application/json"))[0].status == 201
    await node.cut()
    await node.restart()
    head, said = await node.ask("POST", path, asked, content_type="application/json")
    assert (head.status, said) == (201, json.loads(asked))
    for other, body in ((path, b'{"spec":{"audiences":["c"]}}'), (path.replace("sa/", "sb/"), asked)):
        assert (await node.ask("POST", other, body, content_type="application/json"))[0].status == 503
    for file in node.folder.glob("autonomy.db*"):
        assert b"audiences" not in file.read_bytes()


async def test_the_own_node_is_there_already_and_the_lease_is_noted(node: Node) -> None:
    await node.names("/api/v1/nodes?fieldSelector=metadata.name%3Dn&resourceVersion=0")
    await node.cut()
    head, said = await node.ask("POST", "/api/v1/nodes", b'{"metadata":{"name":"n"}}', content_type="application/json")
    assert (head.status, said["reason"]) == (409, "AlreadyExists")
    other = b'{"metadata":{"name":"m"}}'
    assert (await node.ask("POST", "/api/v1/nodes", other, content_type="application/json"))[0].status == 503
    assert node.api.lease_seen is None
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"
    assert (await node.ask("PUT", lease, b"{}"))[0].status == 503
    assert node.api.lease_seen is not None


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
    ("DELETE", "/api/v1/namespaces/ns/pods/one"), ("POST", "/api/v1/namespaces/ns/pods/one/eviction"),
    ("PUT", "/api/v1/nodes/n/status"), ("DELETE", "/apis/resource.k8s.io/v1/resourceslices"),
])  # fmt: skip
async def test_all_else_is_refused_with_the_reason(node: Node, method: str, path: str) -> None:
    await node.names(FIRST)
    await node.cut()
    head, said = await node.ask(method, path, b"{}")
    assert (head.status, said["reason"]) == (503, "ServiceUnavailable")
    assert "is not reached since" in said["message"]
    assert head.headers.get("retry-after") is None


# Others


async def test_who_is_not_the_node_sees_nothing_that_is_kept(node: Node) -> None:
    await node.names(FIRST)
    await node.cut()
    assert (await node.ask("GET", FIRST, x_nobody="1"))[0].status == 503


async def test_a_link_that_flaps_leaves_watches_calm(node: Node) -> None:
    await node.names(FIRST)
    async with node.watching(watch(str(node.kube.version))) as following:
        for number in range(3):
            await node.cut()
            await asyncio.sleep(0.05)
            node.kube.gone = False
            await node.until_up()
            await node.kube.put("pods", f"p{number}", "ns")
            assert (await following())["object"]["metadata"]["name"] == f"p{number}"
    assert node.kube.counts()["/api/v1/pods"] == 1


# What a reader of all this found


async def test_who_speaks_for_somebody_else_is_the_api_servers(node: Node) -> None:
    await node.names(FIRST)
    assert node.kube.counts()["/api/v1/pods"] == 1
    await node.ask("GET", FIRST, impersonate_user="bob")
    assert node.kube.counts()["/api/v1/pods"] == 2
    await node.cut()
    assert (await node.ask("GET", FIRST, impersonate_user="bob"))[0].status == 503


async def test_a_bookmark_is_never_ahead_of_what_was_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BOOKMARK_S", 0.0)
    await node.names(FIRST)
    (feed,) = node.api.feeds.all
    seen = [feed.replica.version]
    async with node.watching(watch(str(node.kube.version), allowWatchBookmarks="true")) as following:
        for number in range(20):
            await node.kube.put("pods", f"p{number}", "ns")
        while len([one for one in seen if one]) < 22:
            told = await following()
            version = int(told["object"]["metadata"]["resourceVersion"])
            if told["type"] == "BOOKMARK":
                assert version == seen[-1], "whoever comes back with it would miss what is between"
                if len(seen) == 21:
                    break
            else:
                seen.append(version)


async def test_one_who_gives_up_on_a_write_takes_nobody_with_them(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    await keeper.open()
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(keeper.write(ScopeWrite(f"scope-{number}", 5))) for number in range(4)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await asyncio.gather(*tasks[1:]) == ["", "", ""]
    await keeper.aclose()


async def test_statuses_said_at_once_are_all_told(node: Node) -> None:
    await node.names("/api/v1/nodes?fieldSelector=metadata.name%3Dn&resourceVersion=0")
    await node.cut()
    bodies = [json.dumps({"status": {f"said{number}": "x"}}).encode() for number in range(8)]
    said = [node.ask("PATCH", "/api/v1/nodes/n/status", body, content_type=MERGE) for body in bodies]
    assert {head.status for head, _ in await asyncio.gather(*said)} == {202}
    node.kube.gone = False
    await eventually(lambda: node.kube.writes, 10)
    assert len(json.loads(node.kube.writes[0][2])["status"]) == 8


@pytest.mark.parametrize("body", [
    b"", b"1", b'{"status":5}', b'{"status":{"conditions":5}}', b'{"status":{"podIPs":[1]}}', b'{"metadata":1}',
    b'{"status":{"conditions":[{"status":"True"}]}}', b'{"status":{"x":' + b'{"a":' * 400 + b"1" + b"}" * 402,
])  # fmt: skip
async def test_a_status_that_is_none_is_refused_before_it_is_kept(node: Node, body: bytes) -> None:
    await node.names(FIRST)
    await node.cut()
    for kind in (MERGE, "application/strategic-merge-patch+json"):
        head, _ = await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", body, content_type=kind)
        assert head.status == 400
    head, _ = await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", b"[]",
                             content_type="application/json-patch+json")  # fmt: skip
    assert head.status == 415
    assert not node.api.writes.statuses


async def test_what_is_refused_for_now_is_told_later(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API server that has just started knows nothing of who may do what."""
    monkeypatch.setattr(offline_writes, "RETRY_S", 0.3)
    await node.names(FIRST)
    await node.cut()
    await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", b'{"status":{"phase":"X"}}', content_type=MERGE)
    event = b'{"metadata":{"name":"e"}}'
    await node.ask("POST", "/api/v1/namespaces/a%20b/events", event, content_type="application/json")
    for status in (401, 403):
        node.kube.answers["/api/v1/namespaces"] = status
        node.kube.gone = False
        await node.until_up()
        await eventually(lambda: any(one.startswith("PATCH") for one in node.kube.seen), 10)
        await asyncio.sleep(0.1)
        assert (len(node.api.writes.statuses), len(node.api.writes.events)) == (1, 1)
        await node.cut()
        node.kube.seen.clear()
    node.kube.answers.clear()
    node.kube.gone = False
    await eventually(lambda: len(node.kube.writes) == 2, 15)


async def test_what_was_shown_otherwise_can_be_watched_by_who_lists_it(node: Node) -> None:
    """The object keeps its version, so that the version alone does not tell whether a client has seen it so."""
    await node.names(FIRST)
    await node.cut()
    await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", b'{"status":{"phase":"X"}}', content_type=MERGE)
    async with node.client() as http:
        head = await http.request("GET", FIRST, [("host", "x")])
        listed = json.loads(await http.read_body(1 << 20))
        assert listed["items"][0]["status"]["phase"] == "X"
        head = await http.request("GET", watch(listed["metadata"]["resourceVersion"]), [("host", "x")])
        assert head.status == 200
        await node.ask(
            "PATCH", "/api/v1/namespaces/ns/pods/one/status", b'{"status":{"phase":"Y"}}', content_type=MERGE
        )
        told = json.loads(await http.read_chunk())
    assert (told["type"], told["object"]["status"]["phase"]) == ("MODIFIED", "Y")


async def test_what_was_dropped_does_not_come_back_as_a_part(tmp_path: Path) -> None:
    """A write that waited when its list was dropped would make a list of one object of it."""
    keeper = Keeper(tmp_path)
    await keeper.open()
    one, two = (Stored("ns", name, "uid", 5, b"raw") for name in ("one", "two"))
    assert await keeper.write(ScopeWrite("list", 5, [one, two], anew=True)) == ""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keeper.write(ScopeWrite("other", 5, anew=True)))
        await asyncio.sleep(0)
        late = loop.create_task(keeper.write(ScopeWrite("list", 6, [one._replace(version=6)], extends=True)))
        await asyncio.sleep(0)
        await keeper.drop("list")
        await late
    assert await keeper.write(ScopeWrite("list", 7, [two._replace(version=7)], extends=True)) == ""
    await keeper.aclose()
    again = Keeper(tmp_path)
    assert set(await again.open()) == {"other"}
    await again.aclose()


async def test_users_take_no_room_of_the_node(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path, KeptLimits(total_bytes=20_000)) as node:
        for number in range(20):
            await node.kube.put("services", f"s{number}", "ns", spec={"text": "x" * 400})
        node.kube.users, node.kube.rights = {"t": "user"}, {"user": {"services"}}
        services = "/api/v1/services?resourceVersion=0"
        assert len(await node.names(services, authorization="Bearer t")) == 20
        await node.kube.put("pods", "one", "ns")
        await node.names(FIRST)
        await node.kube.put("pods", "two", "ns")
        await eventually(lambda: [len(one.replica) for one in node.api.feeds.all] == [0, 2])
        await node.cut()
        assert await node.names(FIRST) == ["one", "two"]
        (feed,) = [feed for feed in node.api.feeds.all if feed.scope.resource == "services"]
        assert "more than it may together" in feed.trouble


async def test_a_large_object_can_be_watched(node: Node) -> None:
    await node.kube.put("configmaps", "c", "ns", data={"text": "x" * 300_000})
    target = "/api/v1/namespaces/ns/configmaps?fieldSelector=metadata.name%3Dc"
    await node.names(f"{target}&resourceVersion=0")
    async with node.watching(f"{target}&watch=1&resourceVersion={node.kube.version}") as following:
        for number in range(3):
            await node.kube.put("configmaps", "c", "ns", data={"text": "x" * 300_000, "n": str(number)})
            told = await following()
            assert (told["type"], told["object"]["data"]["n"]) == ("MODIFIED", str(number))
