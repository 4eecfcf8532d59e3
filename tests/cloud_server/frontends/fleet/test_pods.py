from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.pod_limits import PodLimits
from cloud_server.frontends.fleet.pod_listing import PodListing
from cloud_server.frontends.fleet.pods import (
    away,
    choose_container,
    containers,
    is_settled,
    sources_missing,
    stand_in,
)
from protos import tunnel_pb2
from tests.support.fleet import START, box, pod_list
from tunnel.kubeapi.status import ApiError


def pods_from_kubelet(body: Any, agent: str) -> list[Any]:
    """The pods of a whole list."""
    return _listing(body, agent).finish(0).pods


def _listing(body: Any, agent: str, limits: PodLimits = PodLimits()) -> PodListing:  # noqa: B008  # immutable
    listing = PodListing(agent, limits, {})
    for item in body["items"]:
        listing.add(json.dumps(item).encode())
    return listing


def _listed(**changes: Any) -> object:
    body = json.loads(pod_list("box-7", "host", "nginx.service"))
    body["items"][0] |= changes
    return body


def test_a_pod_of_a_kubelet_is_on_the_node_of_its_agent() -> None:
    (pod,) = pods_from_kubelet(_listed(), "box-7")
    assert pod["spec"]["nodeName"] == "box-7"
    assert pod["metadata"]["uid"] not in ("", "uid-of-box-7")
    (elsewhere,) = pods_from_kubelet(_listed(), "box-8")
    assert elsewhere["metadata"]["uid"] != pod["metadata"]["uid"]
    assert containers(pod) == ["host", "nginx.service"]


@pytest.mark.parametrize(
    "body",
    [
        {"items": [5, None, "x", [], {}]},
        _listed(metadata=5),
        _listed(metadata={"name": "../x"}),
        _listed(metadata={"name": "Box"}),
        _listed(metadata={"name": "a", "namespace": "a/b"}),
        _listed(metadata={"name": ["a"]}),
        _listed(metadata={"name": "a" * 248}),  # with the name of its box it is no name any more
        _listed(spec=None),
    ],
)
def test_what_is_no_pod_is_left_out(body: object) -> None:
    listed = _listing(body, "box-7").finish(0)
    assert listed.pods == []
    assert listed.incomplete is not None
    assert listed.incomplete["reason"] == "Malformed"


def test_parts_that_are_nonsense_are_left_out() -> None:
    odd = _listed(
        metadata={"name": "a", "uid": 5, "labels": {"x": 1, "y": "z"}, "creationTimestamp": 7},
        spec={"containers": [5, {"name": "ok"}, {"name": "a/b"}, {"name": 1}, {}], "initContainers": "x"},
        status={"containerStatuses": [1, {"name": "ok"}], "phase": 5},
    )
    (pod,) = pods_from_kubelet(odd, "box-7")
    assert containers(pod) == ["ok"]
    assert pod["metadata"]["labels"] == {"y": "z"}
    assert pod["status"] == {"containerStatuses": [{"name": "ok"}], "phase": "Unknown"}


@pytest.mark.parametrize(
    ("dates", "created"),
    [
        (("2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"), "2026-01-01T00:00:00Z"),
        ((None, "2026-02-02T00:00:00Z"), "2026-02-02T00:00:00Z"),
        ((None, None), None),
        ((None, 5), None),
    ],
)
def test_a_static_pod_is_as_old_as_its_start(dates: tuple[object, object], created: str | None) -> None:
    odd = _listed(metadata={"name": "a", "creationTimestamp": dates[0]}, status={"startTime": dates[1]})
    (pod,) = pods_from_kubelet(odd, "box-7")
    assert pod["metadata"].get("creationTimestamp") == created


@pytest.mark.parametrize(
    ("phase", "ready", "waiting", "settled"),
    [
        ("Running", "True", "", True),
        ("Running", "True", "FileNotFound", True),
        ("Running", "True", "Activating", False),
        ("Running", "False", "", False),
        ("Running", None, "", False),
        ("Pending", None, "", False),
        ("Unknown", "True", "", False),
        ("Succeeded", "False", "", True),
        ("Failed", "False", "", True),
    ],
)
def test_a_pod_is_settled_when_it_is_ready_with_nothing_about_to_run_or_has_ended(
    phase: str, ready: str | None, waiting: str, settled: bool
) -> None:
    state: dict[str, object] = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    status = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": ready}] if ready else [],
        "containerStatuses": [{"name": "c0", "state": {"running": {}}}, {"name": "c1", "state": state}],
    }
    (pod,) = pods_from_kubelet(_listed(status=status), "box-7")
    assert is_settled(pod) is settled


MISSING = {
    "type": "SourcesMissing",
    "status": "True",
    "reason": "FileNotFound",
    "message": "b.log: it does not exist",
    "lastTransitionTime": "2026-01-31T12:00:00Z",
}


def _with_condition(**changes: object) -> list[Any]:
    return pods_from_kubelet(_listed(status={"phase": "Running", "conditions": [{**MISSING, **changes}]}), "box-7")


def test_what_a_box_lacks_is_a_condition_of_its_node() -> None:
    name = _with_condition()[0]["metadata"]["name"]
    assert sources_missing(_with_condition(), name) == MISSING
    assert sources_missing(_with_condition(), "box-8") is None  # another pod on that box
    assert sources_missing([], name) is None


def test_a_box_cannot_make_its_node_unreadable_with_it() -> None:
    name = _with_condition()[0]["metadata"]["name"]
    found = sources_missing(_with_condition(lastTransitionTime="yesterday", message="\x1b[2J" + "x" * 9999), name)
    assert found is not None
    assert "lastTransitionTime" not in found
    assert (found["message"][:3], len(found["message"])) == ("?xx", 1021)
    assert sources_missing(_with_condition(status={"a": 1}), name) is None


def test_the_container_is_the_named_the_default_or_the_first() -> None:
    (pod,) = pods_from_kubelet(_listed(), "box-7")
    assert choose_container(pod, "nginx.service") == "nginx.service"
    assert choose_container(pod, "") == "host"
    pod["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "nginx.service"}
    assert choose_container(pod, "") == "nginx.service"
    pod["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "gone"}
    assert choose_container(pod, "") == "host"
    with pytest.raises(ApiError, match=r"nope is not valid for pod box-7: it has host, nginx\.service"):
        choose_container(pod, "nope")
    pod["spec"]["containers"] = []
    with pytest.raises(ApiError, match="has no containers"):
        choose_container(pod, "")


def test_away_says_so_and_keeps_the_rest() -> None:
    view = box("box-7", connected=False)
    (pod,) = pods_from_kubelet(_listed(), "box-7")
    marked = away(pod, view)
    assert marked["status"]["phase"] == "Unknown"
    assert marked["status"]["reason"] == "AgentAway"
    assert [each["ready"] for each in marked["status"]["containerStatuses"]] == [False, False]
    assert {each["type"]: each["status"] for each in marked["status"]["conditions"]} == {
        "ContainersReady": "False",
        "Ready": "False",
    }
    assert pod["status"]["phase"] == "Running"
    assert away(stand_in(view, START), view)["status"]["message"].startswith("agent box-7 is not connected since 2026")


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (None, "NotKnown"),
        (tunnel_pb2.Node(services=["kubelet"]), "NotKnown"),
        (tunnel_pb2.Node(), "NothingOffered"),
    ],
)
def test_a_stand_in_says_why_it_is_one(node: tunnel_pb2.Node | None, reason: str) -> None:
    pod = stand_in(AgentView(name="box-7", connected=True, node=node), START)
    (status,) = pod["status"]["containerStatuses"]
    assert status["state"]["waiting"]["reason"] == reason
