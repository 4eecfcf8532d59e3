"""The box as a pod."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from edge_agent.hostkubelet.pod import Container, Kind, containers, pod_list
from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.units import ContainerState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_names_are_what_people_type_and_unique() -> None:
    settings = HostSettings(
        exec=True,
        units=["nginx.service", "app.log.service", "nginx.service"],
        files=[Path("/a/app.log"), Path("/b/app.log"), Path("/c/host"), Path("/d/nginx.service"), Path("/a/app.log")],
    )
    assert [(container.name, container.image) for container in containers(settings)] == [
        ("host", "host"),
        ("nginx.service", "unit:nginx.service"),
        ("app.log.service", "unit:app.log.service"),
        ("app.log", "file:/a/app.log"),
        ("app.log-2", "file:/b/app.log"),
        ("host-2", "file:/c/host"),
        ("nginx.service-2", "file:/d/nginx.service"),
    ]


def test_nothing_is_offered_by_default() -> None:
    assert containers(HostSettings()) == []
    (pod,) = pod_list("box-7", [], {}, NOON)["items"]
    assert pod["spec"]["containers"] == []
    assert "annotations" not in pod["metadata"]


def test_the_pod() -> None:
    offered = [Container("host", Kind.HOST, ""), Container("a.service", Kind.UNIT, "a.service")]
    states = {
        "host": ContainerState({"running": {}}, running=True),
        "a.service": ContainerState({"terminated": {"exitCode": 3}}, restarts=4),
    }
    (pod,) = pod_list("box-7", offered, states, NOON)["items"]
    (again,) = pod_list("box-7", offered, states, NOON)["items"]
    assert pod["metadata"] == {
        "name": "box-7",
        "namespace": "default",
        "uid": again["metadata"]["uid"],
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "annotations": {"kubectl.kubernetes.io/default-container": "host"},
    }
    assert pod["spec"]["nodeName"] == "box-7"
    assert pod["status"]["phase"] == "Running"
    assert {condition["type"]: condition["status"] for condition in pod["status"]["conditions"]} == {
        "Ready": "False",
        "ContainersReady": "False",
    }
    assert pod["status"]["containerStatuses"][1] == {
        "name": "a.service",
        "image": "unit:a.service",
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 4,
        "state": {"terminated": {"exitCode": 3}},
        "lastState": {},
    }
