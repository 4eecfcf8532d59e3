"""After a cut, the cloud is told that there was one, and what has become of what was written meanwhile."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.cluster.autonomous import SITE, Edge
from tests.support.agent_status import status_of
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def condition(edge: Edge, *, on_the_node: bool = False) -> dict[str, Any]:
    """What the cloud's Node says, or the one that the node's own components see; empty for nothing."""
    said = edge.ask(f"/api/v1/nodes/{SITE}") if on_the_node else edge.kube.kubectl("get", "node", SITE, "-o", "json")
    conditions = json.loads(said)["status"]["conditions"]
    return next((one for one in conditions if one["type"] == "longline/Autonomous"), {})


def outages(edge: Edge) -> list[dict[str, Any]]:
    """The Events that tell of one."""
    listed = edge.kube.kubectl("get", "events", "--field-selector", "reason=ApiServerReached", "-o", "json")
    return list(json.loads(listed)["items"])


def test_the_cloud_is_told_of_a_cut(edge: Edge) -> None:
    before = len(outages(edge))
    start = datetime.now(UTC)
    with edge.cut():
        wait_until(lambda: not status_of(edge.box)[1]["autonomy"]["reached"], "the cut is noticed", 15)
        wait_until(lambda: condition(edge, on_the_node=True).get("reason") == "ApiServerAway", "the Node says so", 30)
        _, status = status_of(edge.box)
        autonomy = status["autonomy"]
        assert autonomy["waiting_since"]["statuses"] is not None
        assert all(scope["stale_s"] > 5 for scope in autonomy["scopes"])
    wait_until(lambda: len(outages(edge)) > before, "an Event tells of the cut", 30)
    event = max(outages(edge), key=lambda one: one["lastTimestamp"])
    assert event["involvedObject"]["name"] == SITE
    assert event["message"].startswith(f"The API server was away from {event['firstTimestamp']} to ")
    assert -2 < (datetime.fromisoformat(event["firstTimestamp"]) - start) / timedelta(seconds=1) < 15
    wait_until(lambda: event["firstTimestamp"] in condition(edge)["message"], "the Node tells of it as well", 30)
    told = condition(edge)
    assert (told["status"], told["reason"]) == ("True", "AllKept"), told
    wait_until(edge.is_ready, "the kubelet and the agent do not fight", 60)
    assert condition(edge) == told
    assert "ApiServerReached" in edge.kube.kubectl("describe", "node", SITE)
