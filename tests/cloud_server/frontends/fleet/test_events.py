"""What boxes tell of themselves, as a stock kubectl shows it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cloud_server.frontends.fleet.events import event_objects
from protos import tunnel_pb2
from tests.support.fleet import START, Fleet, box, box_node
from tests.support.kubectl import kubectl

pytestmark = pytest.mark.timeout(60)
SINCE = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp())


def telling(*facts: tunnel_pb2.Fact) -> tunnel_pb2.Node:
    node = box_node()
    node.facts.extend(facts)
    return node


async def test_kubectl_shows_them_until_the_box_tells_them_no_more(fleet: Fleet) -> None:
    fact = tunnel_pb2.Fact(code="LL2018", text="the clock is wrong", since_s=SINCE)
    fleet.registry.change("box-7", node=telling(fact))
    events = (await kubectl(fleet.kubeconfig, "get", "events", "--no-headers")).out.split()
    assert events[1:4] == ["Warning", "LL2018", "node/box-7"]
    described = (await kubectl(fleet.kubeconfig, "describe", "node", "box-7")).out
    assert "Warning  LL2018" in described
    assert "the clock is wrong" in described.partition("Events:")[2]
    fact.until_s = SINCE + 60
    fleet.registry.change("box-7", node=telling(fact))
    events = (await kubectl(fleet.kubeconfig, "get", "events", "--no-headers")).out.split()
    assert events[1:3] == ["Normal", "LL2018"]
    other = await kubectl(fleet.kubeconfig, "get", "events.v1.events.k8s.io")
    assert (other.code, other.err.strip()) == (0, "No resources found in default namespace.")
    fleet.registry.change("box-7", node=telling())
    assert await nothing(fleet)


async def test_they_go_with_their_box(fleet: Fleet) -> None:
    fact = tunnel_pb2.Fact(code="LL2018", text="the clock is wrong", since_s=SINCE)
    fleet.registry.change("box-7", node=telling(fact))
    assert not await nothing(fleet)
    fleet.registry.remove("box-7")
    assert await nothing(fleet)


async def nothing(fleet: Fleet) -> bool:
    """Whether there are no events."""
    return "No resources found" in (await kubectl(fleet.kubeconfig, "get", "events")).err


def test_what_has_no_code_of_ours_is_none_and_no_name_is_another_boxs() -> None:
    node = telling(
        tunnel_pb2.Fact(code="../x", text="x"), tunnel_pb2.Fact(code="LL1004", text="a\x1b[31m", since_s=SINCE)
    )
    (event,) = event_objects(box("box-7", node=node), START)
    assert event["metadata"]["name"] == f"box-7.ll1004.{SINCE:x}"
    assert event["message"] == "a?"
    assert event["involvedObject"]["name"] == "box-7"
