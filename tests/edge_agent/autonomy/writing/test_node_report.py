"""What the cloud and whoever looks at the Node are told of a node that does without its API server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.upward import uplink
from edge_agent.autonomy.writing import node_report, replaying
from edge_agent.autonomy.writing.node_report import AWAY, BACK, CONDITION
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually

Json = dict[str, Any]
NODES = "/api/v1/nodes?fieldSelector=metadata.name%3Dn"
STATUS = "/api/v1/nodes/n/status"
EVENTS = "/api/v1/namespaces/default/events"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    for name, value in {"LOOK_S": 0.02, "NOTED_S": 0.1, "FRESH_S": 0.1, "KEPT_EACH_S": 0.0}.items():
        monkeypatch.setattr(node_report, name, value)
    monkeypatch.setattr(uplink, "RETRY_FIRST_S", 0.1)
    async with node_and_kube(tmp_path) as made:
        conditions = [{"type": "Ready", "status": "True"}]
        await made.kube.put("nodes", "n", status={"conditions": conditions})
        await made.kube.put("pods", "one", "ns", status={"phase": "Pending"})
        await made.names(f"{NODES}&resourceVersion=0")
        yield made


async def back(node: Node) -> None:
    node.kube.gone = False
    await node.until_up()


def told(node: Node) -> list[Json]:
    """The events that the API server has."""
    return [json.loads(body) for _, path, body in node.kube.writes if path == EVENTS]


def conditions(node: Node) -> list[Json]:
    """The conditions that it was told, one after the other."""
    patches = [json.loads(body) for method, path, body in node.kube.writes if (method, path) == ("PATCH", STATUS)]
    told = [one for patch in patches for one in patch["status"].get("conditions", ())]
    return [one for one in told if one["type"] == CONDITION]


async def shown(node: Node) -> Json:
    """The condition as the kubelet and people on the node see it; empty when there is none."""
    _, said = await node.ask("GET", "/api/v1/nodes/n?resourceVersion=0")
    return next((one for one in said["status"]["conditions"] if one["type"] == CONDITION), {})


async def settled(node: Node) -> None:
    """Some looks have gone by."""
    await asyncio.sleep(node_report.FRESH_S + 8 * node_report.LOOK_S)


async def test_the_condition_is_written_once(node: Node) -> None:
    await eventually(lambda: conditions(node))
    await settled(node)
    (condition,) = conditions(node)
    assert (condition["status"], condition["reason"]) == ("True", "AllKept")
    assert condition["message"] == "All that this node asks the API server for is kept."
    assert condition["lastTransitionTime"]
    assert not told(node)


async def test_a_condition_that_the_node_has_is_not_written_again(node: Node) -> None:
    await eventually(lambda: conditions(node))
    (condition,) = conditions(node)
    condition |= {"lastHeartbeatTime": "2026-03-01T12:00:00Z", "lastTransitionTime": "2026-03-01T12:00:00Z"}
    await node.kube.put("nodes", "n", status={"conditions": [condition]})
    await eventually(lambda: node.api.feeds.all[0].replica.version == node.kube.version)
    await node.restart()
    await node.until_up()
    await settled(node)
    assert len(conditions(node)) == 1


async def test_what_is_not_kept_is_named(node: Node) -> None:
    await eventually(lambda: conditions(node))
    node.api.keeper.seals = False
    await node.names("/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Ds&resourceVersion=0",
                     accept="application/json")  # fmt: skip
    await eventually(lambda: len(conditions(node)) == 2)
    condition = conditions(node)[-1]
    assert (condition["status"], condition["reason"]) == ("False", "PartsNotKept")
    assert condition["message"] == "Not kept: secrets in ns, metadata.name=s (secrets cannot be sealed here)."


async def test_an_outage_is_told_with_what_was_written_meanwhile(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_report, "FRESH_S", 60.0)  # it is not told before what waits
    await node.names("/api/v1/pods?resourceVersion=0")
    await node.cut()
    for name in ("e1", "e2"):
        await node.ask("POST", "/api/v1/namespaces/ns/events", json.dumps({"metadata": {"name": name}}).encode(),
                       content_type="application/json")  # fmt: skip
    await node.ask("PATCH", "/api/v1/namespaces/ns/pods/one/status", b'{"status":{"phase":"X"}}', content_type=MERGE)
    node.kube.answers["/api/v1/namespaces/ns/pods/one/status"] = 409
    await back(node)
    await eventually(lambda: told(node), 10)
    (event,) = told(node)
    assert (event["reason"], event["type"], event["count"]) == (BACK, "Warning", 1)
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n"}
    message = event["message"]
    assert message.startswith(f"The API server was away from {event['firstTimestamp']} to {event['lastTimestamp']}")
    assert re.search("Told late: (1 x statuses, )?2 x events[.]", message), "the condition is a status as well"
    assert "Dropped statuses: 1 x its object is another one now." in message
    await eventually(lambda: [one["reason"] for one in conditions(node)[-1:]] == ["AllKept"])
    assert f"The API server was away from {event['firstTimestamp']} to" in conditions(node)[-1]["message"]
    why = node.api.as_json()["dropped_why"]
    assert why == {"statuses": {"its object is another one now": 1}, "events": {}}


async def test_while_it_is_away_the_node_says_so_also_after_a_restart(node: Node) -> None:
    await node.cut()
    await eventually(lambda: len(node.api.writes.statuses))
    condition = await shown(node)
    assert (condition["reason"], condition["status"]) == (AWAY, "True")
    assert condition["message"].startswith("The API server is away since ")
    since = node.api.as_json()["outages"]["since"]
    assert node.api.as_json()["waiting_since"]["statuses"] is not None
    await node.restart()
    assert await shown(node) == condition
    assert node.api.as_json()["outages"]["since"] == since
    assert node.api.feeds.all[0].stale_s > 0.1
    await back(node)
    await eventually(lambda: told(node), 10)
    assert told(node)[0]["firstTimestamp"] == f"{since:%Y-%m-%dT%H:%M:%SZ}", "it began before the restart"
    await eventually(lambda: conditions(node) and conditions(node)[-1]["reason"] == "AllKept", 10)


async def test_the_kubelets_own_patches_leave_it_alone(node: Node) -> None:
    await node.cut()
    await eventually(lambda: len(node.api.writes.statuses))
    patch = {"status": {"conditions": [{"type": "Ready", "status": "False"}], "$setElementOrder/conditions":
                        [{"type": "Ready"}]}}  # fmt: skip
    head, said = await node.ask("PATCH", STATUS, json.dumps(patch).encode(),
                                content_type="application/strategic-merge-patch+json")  # fmt: skip
    assert head.status == 202
    assert {one["type"]: one["status"] for one in said["status"]["conditions"]} == {"Ready": "False", CONDITION: "True"}


async def test_a_link_that_flaps_is_told_as_one(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_report, "NOTED_S", 60.0)
    monkeypatch.setattr(node_report, "EACH_S", 3600.0)
    await eventually(lambda: conditions(node))
    node.api.report._tellings = 1.0  # as after some
    commits = node.api.keeper.commits
    for number in range(1, 6):
        node.api.uplink._lost("a flap", is_first=False)
        await node.until_up()
        await eventually(lambda: told(node) and node.api.report._tellings < 1)  # its answer has come
        assert [event["count"] for event in told(node)] == [1], f"after {number}"
    assert node.api.keeper.commits - commits <= 1, "an outage that is short is written when it is told"
    monkeypatch.setattr(node_report, "EACH_S", 0.1)
    await eventually(lambda: len(told(node)) > 1)
    event = told(node)[1]
    assert event["count"] >= 4, "each that was made here, and what each has broken"
    assert f"{event['count']} times from" in event["message"]


async def test_a_refused_event_is_not_told_for_ever(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "MAX_REFUSALS", 3)
    node.kube.answers[EVENTS] = 403
    await node.cut()
    await back(node)
    await eventually(lambda: sum(EVENTS in one for one in node.kube.seen) == 3, 10)
    await eventually(lambda: conditions(node))
    await settled(node)
    assert sum(EVENTS in one for one in node.kube.seen) == 3


@pytest.mark.parametrize("status", [500, 403])
async def test_an_event_waits_for_an_api_server_in_trouble(node: Node, status: int) -> None:
    node.kube.answers[EVENTS] = status
    await node.cut()
    await back(node)
    await eventually(lambda: any(EVENTS in one for one in node.kube.seen), 10)
    node.kube.answers.clear()
    await eventually(lambda: told(node), 10)
    assert len(told(node)) == 1


async def test_it_is_said_of_each_part_for_how_long_it_is_not_current(node: Node) -> None:
    await eventually(lambda: node.api.feeds.all[0].is_live)
    assert [scope["stale_s"] for scope in node.api.as_json()["scopes"]] == [0.0]
    await node.cut()
    await eventually(lambda: node.api.as_json()["scopes"][0]["stale_s"] >= 0.2)
    await back(node)
    await eventually(lambda: node.api.as_json()["scopes"][0]["stale_s"] == 0.0)


async def test_the_condition_goes_with_the_proxy(node: Node) -> None:
    await eventually(lambda: conditions(node))
    (condition,) = conditions(node)
    await node.api.report.withdraw()
    assert len(conditions(node)) == 1, "the Node does not have it yet"
    await node.kube.put("nodes", "n", status={"conditions": [condition]})
    await eventually(lambda: node.api.feeds.all[0].replica.version == node.kube.version)
    await node.api.report.withdraw()
    assert conditions(node)[-1] == {"type": CONDITION, "$patch": "delete"}
    await node.cut()
    await node.api.report.withdraw()
    assert len(conditions(node)) == 2


async def test_an_event_whose_answer_was_lost_is_not_written_twice(node: Node) -> None:
    node.kube.answers[EVENTS] = 409
    await node.cut()
    await back(node)
    await eventually(lambda: conditions(node), 10)
    await settled(node)
    assert sum(EVENTS in one for one in node.kube.seen) == 1
    assert node.api.as_json()["outages"]["untold"] is None
