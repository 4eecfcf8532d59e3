"""What `edge-agent autonomy status` says, and whether all is kept."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.operate.autonomy_text import is_whole, lines

SCOPE = {
    "name": "pods", "who": "node", "objects": 12, "bytes": 34567, "complete": True, "live": True, "kept": True,
    "watchers": 1, "stale_s": 0.0, "trouble": None,
}  # fmt: skip
GOOD: dict[str, Any] = {
    "reached": True, "since": "2026-03-01T12:00:00Z", "reason": None, "scopes": [SCOPE], "passed": [], "missing": [],
    "singles": 2, "bytes": 1_200_000, "tokens": 4, "waiting": {"statuses": 0, "events": 0},
    "dropped_why": {"statuses": {}, "events": {}}, "lease_seen": "2026-03-01T12:00:10Z", "commits": 7, "trouble": None,
}  # fmt: skip


def test_all_is_kept() -> None:
    assert is_whole(GOOD)
    text = "\n".join(lines(GOOD))
    for wanted in (
        "API server  reached since 2026-03-01 12:00:00 UTC",
        "kubelet     spoke of its lease at 2026-03-01 12:00:10 UTC",
        "disk        7 transactions since the agent began", "writes      0 statuses, 0 events wait to be told",
        "tokens      4 for pods", "objects     2 that are asked for one by one; 1.2 MB in all",
        "kept        pods of node: 12 objects, 35 kB, current, 1 watch it",
    ):  # fmt: skip
        assert wanted in text
    assert "NOT KEPT" not in text


@pytest.mark.parametrize(("change", "wanted"), [
    ({"scopes": [{**SCOPE, "complete": False, "kept": False}]}, "not there as a whole: it is being asked for"),
    ({"scopes": [{**SCOPE, "kept": False, "trouble": "disk full"}]}, "in memory only: disk full"),
    ({"missing": [{"name": "secrets", "who": "node", "since": "2026-03-01T12:00:03Z"}]},
     "NOT KEPT    secrets of node: asked for since 2026-03-01 12:00:03 UTC"),
    ({"passed": ["things"]}, "NOT KEPT    things: there is no room"),
    ({"scopes": []}, "NOT KEPT    anything: nobody has asked for it"),
    ({"trouble": "the disk is full"}, "disk        the disk is full"),
])  # fmt: skip
def test_something_is_not(change: dict[str, Any], wanted: str) -> None:
    assert not is_whole({**GOOD, **change})
    assert wanted in "\n".join(lines({**GOOD, **change}))


def test_the_cloud_is_away_and_all_is_kept() -> None:
    stale = {**SCOPE, "live": False, "stale_s": 90.0, "watchers": 0}
    away = {**GOOD, "reached": False, "reason": "no answer within 2 s", "lease_seen": None, "scopes": [stale],
            "waiting": {"statuses": 3, "events": 9}}  # fmt: skip
    assert is_whole(away)
    text = "\n".join(lines(away))
    for wanted in (
        "API server  away since 2026-03-01 12:00:00 UTC: no answer within 2 s", "not heard of since the agent began",
        "35 kB, not current for 90 s\n", "3 statuses, 9 events wait to be told",
    ):  # fmt: skip
        assert wanted in f"{text}\n"
