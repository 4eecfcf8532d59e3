from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tunnel.kubeapi.tables import human_duration, table

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (3600 * 3 - 1, "179m"),
        (3600 * 3, "3h"),
        (3600 * 7 + 60, "7h1m"),
        (3600 * 8 + 60, "8h"),
        (3600 * 47, "47h"),
        (3600 * 49, "2d1h"),
        (86400 * 7, "7d"),
        (86400 * 8 + 3600, "8d"),
        (86400 * 729, "729d"),
        (86400 * 731, "2y1d"),
        (86400 * 365 * 9, "9y"),
    ],
)
def test_ages_are_as_kubectl_prints_them(seconds: int, text: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == text


def _cells(status: object, spec: object = None) -> list[object]:
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec or {}, "status": status}
    rows = table("pods", [pod], {}, NOW, "None", True)["rows"]
    assert list(rows[0]) == ["cells"]
    return list(rows[0]["cells"])


def test_a_waiting_container_gives_its_reason_and_restarts_are_counted() -> None:
    cells = _cells(
        {
            "phase": "Running",
            "containerStatuses": [
                {"name": "a", "ready": True, "restartCount": 1, "state": {"running": {}}},
                {
                    "name": "b",
                    "ready": False,
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-02T03:03:05Z"}},
                },
            ],
        },
        {"containers": [{"name": "a"}, {"name": "b"}]},
    )
    assert cells[:5] == ["p", "1/2", "CrashLoopBackOff", "3 (60s ago)", "<unknown>"]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"phase": 7, "containerStatuses": "x", "podIP": []},
        {"phase": "Running", "containerStatuses": [{"name": "a", "state": 1, "restartCount": "x", "lastState": {}}]},
        {"phase": "Running", "containerStatuses": [{"name": "a", "state": {"waiting": 1}, "ready": "yes"}]},
    ],
)
def test_nonsense_from_a_kubelet_is_a_row_and_no_crash(status: object) -> None:
    assert _cells(status, {"containers": 5})[0] == "p"


def test_rows_carry_the_object_as_asked() -> None:
    item = {"metadata": {"name": "x", "creationTimestamp": "2026-01-02T03:04:00Z"}, "status": {"phase": "Active"}}
    full = table("namespaces", [item], {"resourceVersion": "5"}, NOW, "Object", True)
    partial = table("namespaces", [item], {}, NOW, "Metadata", False)
    assert full["rows"][0] == {"cells": ["x", "Active", "5s"], "object": item}
    assert [column["name"] for column in full["columnDefinitions"]] == ["Name", "Status", "Age"]
    assert partial["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert partial["columnDefinitions"] == []
