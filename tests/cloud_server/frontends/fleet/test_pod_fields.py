"""The fields of a pod that are shown, and that none is what a client could not read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from cloud_server.frontends.fleet.pod_fields import MAX_ENTRIES, MAX_PAIRS, MAX_TEXT_CHARS, Faults, Unfit, fields_of
from tunnel.kubeapi.held import held_bytes

WHOLE: dict[str, Any] = {
    "metadata": {
        "name": "web", "namespace": "shop", "uid": "1", "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "web", "example.com/tier": "a-1"},
        "annotations": {"note": "two words"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "2", "controller": True}],
    },
    "spec": {
        "hostNetwork": True, "restartPolicy": "Always", "priority": 0, "terminationGracePeriodSeconds": 30,
        "containers": [
            {
                "name": "nginx", "image": "nginx", "command": ["sh", "-c"], "tty": False,
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "100m", "memory": "1.5Gi"}, "requests": {"cpu": "1e3"}},
            }
        ],
    },
    "status": {
        "phase": "Running", "podIP": "10.1.0.9", "podIPs": [{"ip": "10.1.0.9"}],
        "startTime": "2026-01-02T03:04:05.123+01:00",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        "containerStatuses": [
            {
                "name": "nginx", "ready": True, "restartCount": 3,
                "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            }
        ],
    },
}  # fmt: skip


def shown(pod: Any) -> tuple[dict[str, Any], Faults]:
    faults = Faults()
    metadata, spec, status = fields_of(pod, faults)
    return {"metadata": metadata, "spec": spec, "status": status}, faults


def test_what_is_as_it_should_be_is_shown() -> None:
    found, faults = shown(WHOLE)
    assert found == WHOLE
    assert faults.count == 0


def test_fields_that_nobody_looks_at_are_left_out_without_a_word() -> None:
    pod = json.loads(json.dumps(WHOLE))
    pod["metadata"] |= {"managedFields": [{"manager": "x" * 10_000}], "annotations": {"note": "x" * 2000}}
    pod["spec"] |= {"affinity": {"nodeAffinity": {}}, "unknown": 7, "volumes": [{"name": "data"}]}
    pod["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": "s3cret"}]
    found, faults = shown(pod)
    assert faults.count == 0
    assert found["metadata"] == WHOLE["metadata"] | {"annotations": {}}
    assert found["spec"] == WHOLE["spec"]


BAD = {
    "metadata": [
        {"creationTimestamp": "yesterday"}, {"creationTimestamp": "2026-13-02T03:04:05Z"}, {"creationTimestamp": 7},
        {"creationTimestamp": "2026-01-02"}, {"labels": {"a b": "c"}}, {"labels": {"a": "c d"}}, {"labels": {"a": 1}},
        {"labels": [1]}, {"annotations": {"a": {}}}, {"ownerReferences": [{"kind": "Node"}]}, {"uid": ["a"]},
    ],
    "spec": [
        {"hostNetwork": "yes"}, {"priority": 1 << 40}, {"priority": True}, {"priority": 1.5}, {"containers": {}},
        {"containers": [{"name": "a/b"}]}, {"containers": [5]},
        {"containers": [{"name": "a", "ports": [{"containerPort": "http"}]}]},
        {"containers": [{"name": "a", "resources": {"limits": {"cpu": "much"}}}]},
        {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1e999999"}}}]},
        {"containers": [{"name": "a", "command": "sh"}]},
    ],
    "status": [
        {"phase": 5}, {"conditions": [{"type": "Ready"}]}, {"conditions": [{"type": "Ready", "status": True}]},
        {"containerStatuses": [{"name": "a", "restartCount": -(1 << 31) - 1}]},
        {"containerStatuses": [{"name": "a", "state": {"running": {"startedAt": 0}}}]}, {"podIPs": ["10.1.0.9"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("part", "change"), [(part, one) for part, changes in BAD.items() for one in changes])
def test_a_field_that_is_not_what_it_should_be_is_left_out_and_noted(part: str, change: dict[str, Any]) -> None:
    found, faults = shown({**WHOLE, part: WHOLE[part] | change})
    assert faults.count >= 1
    assert faults.names.keys() <= _names(WHOLE)
    assert found != WHOLE
    # What is left is good: read once more, there is nothing to leave out.
    again, none = shown(found)
    assert (again, none.count) == (found, 0)


def _names(part: object) -> set[str]:
    if isinstance(part, dict):
        return set(part).union(*map(_names, part.values()))
    return set().union(*map(_names, part)) if isinstance(part, list) else set()


def test_whatever_a_box_writes_what_is_left_is_a_pod() -> None:
    """Values of all kinds in all places."""
    values: list[Any] = [
        None,
        True,
        7,
        -1.5,
        1 << 70,
        "",
        "x" * 5000,
        "\x1b[2J",
        [],
        {},
        [[]],
        {"a": {"a": []}},
        ["a", 1],
    ]
    dice = random.Random(14)

    def spoilt(part: Any) -> Any:
        if dice.random() < 0.1:
            return dice.choice(values)
        if isinstance(part, dict):
            return {(name if dice.random() < 0.97 else "\x1b"): spoilt(one) for name, one in part.items()}
        return [spoilt(one) for one in part] if isinstance(part, list) else part

    taken = 0
    for _ in range(300):
        try:
            found, _ = shown(spoilt(WHOLE) or {})
        except Unfit:
            continue
        taken += 1
        again, none = shown(found)
        assert (again, none.count) == (found, 0)
        assert "\\u001b" not in json.dumps(found)
    assert taken > 100


def test_texts_lists_and_maps_have_bounds() -> None:
    pod = json.loads(json.dumps(WHOLE))
    pod["status"]["message"] = "x" * 100_000
    pod["metadata"]["labels"] = {f"l{number}": "x" for number in range(10_000)}
    pod["spec"]["containers"] = [{"name": f"c{number}", "args": ["a"] * 1000} for number in range(1000)]
    found, faults = shown(pod)
    assert len(found["status"]["message"]) == MAX_TEXT_CHARS
    assert len(found["metadata"]["labels"]) == MAX_PAIRS
    assert len(found["spec"]["containers"]) == len(found["spec"]["containers"][0]["args"]) == MAX_ENTRIES
    assert {"labels", "containers", "args"} <= faults.names.keys()
    assert held_bytes(faults.names) < 2000
