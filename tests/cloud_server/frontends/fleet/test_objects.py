from __future__ import annotations

import pytest

from cloud_server.frontends.fleet.objects import node_object, with_heartbeat
from protos import tunnel_pb2
from tests.support.fleet import START, box, box_node


def test_a_connected_agent_is_a_ready_node() -> None:
    node = node_object(box("box-7", node=box_node(site="north")), START)
    (ready,) = node["status"]["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "AgentConnected")
    assert ready["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert node["metadata"]["labels"] == {
        "kubernetes.io/hostname": "box-7",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        "longline/site": "north",
    }
    assert [(each["type"], each["address"]) for each in node["status"]["addresses"]] == [
        ("InternalIP", "10.1.0.9"),
        ("InternalIP", "fd00::9"),
        ("ExternalIP", "198.51.100.7"),
        ("Hostname", "raspberry"),
    ]
    assert node["status"]["capacity"] == {"cpu": "4", "memory": "8388608Ki", "pods": "110"}
    assert "taints" not in node["spec"]


def test_an_agent_that_is_away_is_unknown_and_tainted() -> None:
    node = node_object(box("box-7", connected=False), START)
    (ready,) = node["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("Unknown", "AgentAway")
    assert "2026-01-02T03:04:05Z" in ready["message"]
    assert node["spec"]["taints"][0]["key"] == "node.kubernetes.io/unreachable"


def test_an_agent_that_has_never_connected_is_a_node_too() -> None:
    view = box("box-7", connected=False, since=None, last_seen=None, node=None, version="", address="")
    node = node_object(view, START)
    assert node["status"]["conditions"][0]["reason"] == "AgentNeverSeen"
    assert node["status"]["addresses"] == [{"type": "Hostname", "address": "box-7"}]
    assert node["status"]["capacity"] == {}
    assert with_heartbeat(node, None) is node


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("node-role.kubernetes.io/control-plane", ""),
        ("a b", "x"),
        ("site", "no rth"),
        ("site", "x" * 64),
        ("x" * 64, "v"),
        ("", "v"),
        ("site\n", "v"),
    ],
)
def test_labels_that_pretend_or_are_none_are_left_out(label: str, value: str) -> None:
    node = node_object(box("box-7", node=tunnel_pb2.Node(labels={label: value})), START)
    assert set(node["metadata"]["labels"]) == {"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch"}


def test_claims_lose_their_control_characters_and_their_length() -> None:
    wild = tunnel_pb2.Node(
        os_image="ev\x1b[31mil\u202e" + "x" * 1000, kernel="a\nb", addresses=["not an address", "::1"]
    )
    node = node_object(box("box-7", node=wild, version="\x07", address="unix"), START)
    info = node["status"]["nodeInfo"]
    assert info["osImage"].startswith("ev?il?x")
    assert len(info["osImage"]) <= 256
    assert info["kernelVersion"] == "a?b"
    assert [each["address"] for each in node["status"]["addresses"]] == ["::1", "box-7"]


def test_a_heartbeat_changes_its_time_and_no_more() -> None:
    node = node_object(box("box-7"), START)
    later = with_heartbeat(node, START.replace(hour=9))
    assert later["status"]["conditions"][0]["lastHeartbeatTime"] == "2026-01-02T09:04:05Z"
    assert node["status"]["conditions"][0]["lastHeartbeatTime"] == "2026-01-02T03:04:05Z"


def test_what_a_box_lacks_leaves_its_node_ready() -> None:
    lacks = {"type": "SourcesMissing", "status": "True", "reason": "FileNotFound", "message": "b.log"}
    ready, sources = node_object(box("box-7"), START, [lacks])["status"]["conditions"]
    assert (ready["type"], ready["status"]) == ("Ready", "True")
    assert sources == lacks | {"lastHeartbeatTime": "2026-01-02T03:04:05Z"}


def test_what_a_box_tells_of_itself_is_a_condition() -> None:
    said = box_node()
    said.facts.add(code="LL2018", text="the clock is wrong\x1b[31m", since_s=1_700_000_000)
    (_, fault) = node_object(box("box-7", node=said), START)["status"]["conditions"]
    assert (fault["type"], fault["status"], fault["reason"]) == ("BoxFault", "True", "LL2018")
    assert fault["message"] == "LL2018: the clock is wrong?"
    assert fault["lastTransitionTime"] == "2023-11-14T22:13:20Z"
    said.facts[0].until_s = 1_700_000_060
    (_, fault) = node_object(box("box-7", node=said), START)["status"]["conditions"]
    assert (fault["status"], fault["reason"]) == ("False", "Mended")
    assert fault["message"].startswith("until 2023-11-14T22:14:20Z: LL2018: the clock is wrong")
