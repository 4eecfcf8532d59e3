"""The box as a pod."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.frontends.fleet.pod_fields import _CONTAINER
from edge_agent.hostkubelet.pod import Container, Kind, Transitions, containers, pod_list
from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.units import ContainerState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def listed(
    offered: Sequence[Container], states: Mapping[str, ContainerState], transitions: Transitions | None = None
) -> dict[str, Any]:
    return pod_list("box-7", offered, states, NOON, transitions or Transitions(NOON), NOON + timedelta(minutes=1))


def conditions(states: Mapping[str, ContainerState]) -> dict[str, dict[str, Any]]:
    offered = [Container(name, Kind.FILE, f"/{name}") for name in states]
    (pod,) = listed(offered, states)["items"]
    return {condition["type"]: condition for condition in pod["status"]["conditions"]}


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
    (pod,) = listed([], {})["items"]
    assert pod["spec"]["containers"] == []
    assert "annotations" not in pod["metadata"]


def test_the_pod() -> None:
    offered = [Container("host", Kind.HOST, ""), Container("a.service", Kind.UNIT, "a.service")]
    states = {
        "host": ContainerState({"running": {}}, running=True),
        "a.service": ContainerState({"terminated": {"exitCode": 3}}, restarts=4),
    }
    (pod,) = listed(offered, states)["items"]
    (again,) = listed(offered, states)["items"]
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
        "PodScheduled": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "False",
        "SourcesMissing": "True",
    }
    assert pod["status"]["containerStatuses"][1] == {
        "name": "a.service",
        "image": "unit:a.service",
        "imageID": "unit:a.service",
        "containerID": again["status"]["containerStatuses"][1]["containerID"],
        "ready": False,
        "started": False,
        "restartCount": 4,
        "state": {"terminated": {"exitCode": 3}},
        "lastState": {},
    }


RUNS = ContainerState({"running": {}}, running=True)
ABSENT = ContainerState({"waiting": {"reason": "FileNotFound", "message": "it does not exist"}}, exists=False)
ENDED = ContainerState({"terminated": {"exitCode": 0, "reason": "Completed"}})


def test_a_box_is_ready_whatever_is_missing_and_says_what_is() -> None:
    found = conditions({"a.log": RUNS, "b.log": ABSENT})
    assert found["Ready"]["status"] == "True"
    assert found["ContainersReady"]["message"] == "containers with unready status: [b.log]"
    assert (found["SourcesMissing"]["status"], found["SourcesMissing"]["reason"]) == ("True", "FileNotFound")
    assert found["SourcesMissing"]["message"] == "b.log: it does not exist"


def test_a_unit_that_ended_well_is_not_missing() -> None:
    found = conditions({"a.service": RUNS, "b.service": ENDED})
    assert (found["ContainersReady"]["status"], found["SourcesMissing"]["status"]) == ("False", "False")


def test_conditions_have_the_time_of_their_last_change() -> None:
    offered, transitions = [Container("a.log", Kind.FILE, "/a.log")], Transitions(NOON)
    for state, since in ((RUNS, "12:00:00"), (RUNS, "12:00:00"), (ABSENT, "12:01:00")):
        (pod,) = listed(offered, {"a.log": state}, transitions)["items"]
        times = {each["type"]: each["lastTransitionTime"] for each in pod["status"]["conditions"]}
        assert times["Ready"] == "2026-01-31T12:00:00Z"
        assert times["SourcesMissing"] == f"2026-01-31T{since}Z"


def test_what_exists_has_an_id_that_stays() -> None:
    offered = [Container("a.log", Kind.FILE, "/a.log"), Container("b.log", Kind.FILE, "/b.log")]
    ids = []
    for _ in range(2):
        (pod,) = listed(offered, {"a.log": ENDED, "b.log": ABSENT})["items"]
        there, absent = pod["status"]["containerStatuses"]
        assert "containerID" not in absent
        ids.append(there["containerID"])
    assert ids[0] == ids[1]
    assert re.fullmatch("longline://[0-9a-f]{64}", ids[0])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/var/log/sp ace.log", "sp-ace.log"),
        ("/var/log/größe (1).log", "gr-e-1-.log"),
        ("/var/log/.hidden", "hidden"),
        ("/var/log/日本", "file"),
        ("/var/log/_x@y:z+.log", "x@y:z+.log"),
        ("/var/log/" + "n" * 255, "n" * 240),
    ],
)
def test_every_file_has_a_name_that_can_be_asked_for(path: str, name: str) -> None:
    (container,) = containers(HostSettings(files=[Path(path)]))
    assert (container.name, container.source) == (name, path)


@given(st.lists(st.text(min_size=1).filter(lambda name: "/" not in name and name not in (".", "..")), max_size=8))
def test_names_are_unique_and_all_are_taken_by_the_cloud_server(names: list[str]) -> None:
    files = [Path("/", name) for name in names]
    offered = containers(HostSettings(exec=True, files=files))
    assert [container.source for container in offered[1:]] == [str(file) for file in dict.fromkeys(files)]
    assert len({container.name for container in offered}) == len(offered)
    assert all(_CONTAINER.fullmatch(container.name) for container in offered)
