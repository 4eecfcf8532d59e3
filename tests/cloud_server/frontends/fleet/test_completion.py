"""What is filled into a pod when it is shown."""

from __future__ import annotations

from typing import Any

from cloud_server.frontends.fleet.completion import completed


def _pod(spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "a"}, "spec": {"nodeName": "a", **spec}, "status": status}


def test_what_a_kubelet_says_is_kept() -> None:
    container = {"name": "x", "image": "y", "resources": {"limits": {"cpu": "1"}}}
    pod = completed(_pod({"restartPolicy": "Never", "containers": [container]}, {"podIP": "10.0.0.1"}), "192.0.2.1")
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert pod["spec"]["containers"][0]["terminationMessagePolicy"] == "File"
    assert (pod["status"]["podIP"], pod["status"]["hostIP"]) == ("10.0.0.1", "192.0.2.1")
    assert "podIPs" not in pod["status"], "its network is its own, so the kubelet alone knows"


def test_a_pod_in_its_nodes_network_has_its_address() -> None:
    status = completed(_pod({"hostNetwork": True}, {}), "192.0.2.1")["status"]
    assert (status["podIP"], status["podIPs"], status["hostIPs"]) == (
        "192.0.2.1", [{"ip": "192.0.2.1"}], [{"ip": "192.0.2.1"}],
    )  # fmt: skip
    assert "podIP" not in completed(_pod({"hostNetwork": True}, {}), "")["status"]


def test_nonsense_of_a_box_is_no_reason_to_fail() -> None:
    raw = _pod(
        {"securityContext": None, "containers": [{"name": "x", "image": None}]},
        {"conditions": ["x", {"type": "Ready"}], "containerStatuses": [{"name": "x", "state": "running"}]},
    )
    pod = completed(raw, "")
    assert pod["spec"]["securityContext"] == {}
    assert pod["spec"]["containers"][0]["image"] == ""
    assert [item["type"] for item in pod["status"]["conditions"]] == ["Ready"]
    assert pod["status"]["containerStatuses"][0]["started"] is False
    assert raw["status"]["conditions"][0] == "x", "what is stored is not changed"
