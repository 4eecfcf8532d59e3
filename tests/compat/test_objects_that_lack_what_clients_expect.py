"""`kubectl debug` crashed at a pod without `spec.securityContext`: objects and refusals beside a real API server's.

What a real one answers is in `recorded/` (`python -m tests.compat.record` records it anew).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.api_requests import OBJECTS, REFUSALS, WRITES, Ask
from tests.compat.fleets import RealFleet, compat_fleet
from tests.compat.shapes import common, lacks, shape
from tests.support.fleet import Fleet
from tests.support.fleet_client import ask

RECORDED = Path(__file__).parent / "recorded"
OBJECT_SHAPES: dict[str, Any] = json.loads((RECORDED / "objects.json").read_text())
DEFAULTS: dict[str, Any] = json.loads((RECORDED / "defaults.json").read_text())
REAL_REFUSALS: dict[str, Any] = json.loads((RECORDED / "refusals.json").read_text())

LEFT_OUT = (
    # Of a node with pods of a network of its own, which boxes have not.
    ".spec.podCIDR", ".spec.podCIDRs",
    # What controllers, admission and the scheduler write: tokens mounted, tolerations, bookkeeping.
    ".metadata.annotations", ".metadata.generation", ".metadata.labels", ".status.observedGeneration",
    ".status.conditions[].observedGeneration", ".spec.serviceAccount", ".spec.serviceAccountName",
    ".spec.tolerations", ".spec.volumes", ".spec.containers[].volumeMounts", ".status.containerStatuses[].resources",
    ".status.containerStatuses[].volumeMounts",
    # How an API server of this minor emulates others.
    ".emulationMajor", ".emulationMinor", ".minCompatibilityMajor", ".minCompatibilityMinor",
    # When a review was made.
    ".metadata.creationTimestamp: not str but None",
)  # fmt: skip
"""What a real API server has and this one leaves out, with the reason."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with compat_fleet(tmp_path) as running:
        yield running


async def _ask(fleet: Fleet, asked: Ask) -> tuple[int, Any]:
    return await ask(
        fleet, asked.path.format(node="box-7", pod="box-7"),
        method=asked.method, headers=asked.headers, body=asked.body, certificate=not asked.stranger,
    )  # fmt: skip


def _is_left_out(fault: str) -> bool:
    path = re.sub(r"\[\d+\]", "[]", fault).removeprefix(".items[]").removeprefix(".rows[].object")
    return path.startswith(LEFT_OUT)


async def test_objects_have_what_a_real_api_server_fills_in(fleet: Fleet) -> None:
    missing: dict[str, list[str]] = {}
    for name, asked in OBJECTS.items():
        code, body = await _ask(fleet, asked)
        assert code < 300, (name, body)
        if name in ("pods", "nodes", "table of pods"):  # boxes that are away have less to say
            field = "rows" if "table" in name else "items"
            body[field] = [part for part in body[field] if "box-7" in json.dumps(part)]
            assert body[field]
        missing[name] = [fault for fault in lacks(OBJECT_SHAPES[name], body) if not _is_left_out(fault)]
    assert {name: faults for name, faults in missing.items() if faults} == {}


def test_every_field_that_is_left_out_is_one_that_a_real_one_has() -> None:
    names = {known.partition(":")[0].rpartition(".")[2].removesuffix("[]") for known in LEFT_OUT}
    recorded = json.dumps(OBJECT_SHAPES)
    assert [name for name in names if f'"{name}"' not in recorded] == []


async def test_pods_have_the_defaults_of_a_real_api_server(fleet: Fleet) -> None:
    for pod in ("box-7", "box-8", "box-9"):
        _, body = await ask(fleet, f"/api/v1/namespaces/default/pods/{pod}")
        assert body["spec"].items() >= DEFAULTS["spec"].items()
        assert body["status"].items() >= DEFAULTS["status"].items()
        assert all(container.items() >= DEFAULTS["container"].items() for container in body["spec"]["containers"])


async def test_refusals_are_those_of_a_real_api_server(fleet: Fleet) -> None:
    seen: dict[str, object] = {}
    real: dict[str, object] = {}
    for name, asked in REFUSALS.items():
        code, body = await _ask(fleet, asked)
        recorded = REAL_REFUSALS[name]
        real[name] = (recorded["code"], recorded["reason"], [])
        seen[name] = (code, body["reason"], list(lacks(recorded["shape"], body)))
    assert seen == real


async def test_what_cannot_be_written_is_405(fleet: Fleet) -> None:
    for name, asked in WRITES.items():
        code, body = await _ask(fleet, asked)
        assert (name, code, body["reason"], body["code"]) == (name, 405, "MethodNotAllowed", 405)
        assert list(lacks(REAL_REFUSALS["write to the collection"]["shape"], body)) == []
        assert body["details"]["kind"] in ("pods", "nodes")
        assert "what boxes offer" in body["message"] or "agents that joined" in body["message"]


_MANIFEST = (
    b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"new"},"spec":{"containers":[{"name":"a","image":"b"}]}}'
)


@pytest.mark.parametrize(
    "arguments",
    [
        "debug box-7 --image=busybox",
        "debug box-7 --image=busybox --copy-to=other",
        "debug node/box-7 --image=busybox",
        "delete pod box-7 --wait=false",
        "delete pods --all --wait=false",
        "delete node box-7 --wait=false",
        "apply -f -",
        "apply --server-side -f -",
        "create -f -",
        "replace -f -",
        "run new --image=busybox",
        "label node box-7 a=b",
        "annotate pod box-7 a=b",
        "taint node box-7 a=b:NoSchedule",
        "cordon box-7",
        "drain box-7 --force --ignore-daemonsets",
        "patch pod box-7 -p {}",
        "set image pod/box-7 host=busybox",
        "create deployment new --image=busybox",
        "create namespace new",
    ],
)
@pytest.mark.e2e
def test_kubectl_says_clearly_what_cannot_be_done(boxes: RealFleet, arguments: str) -> None:
    ran = boxes.run_kubectl(*arguments.split(), stdin=_MANIFEST)
    said = ran.stderr.decode()
    assert ran.returncode == 1 or arguments.startswith("cordon")  # which says it, and exits with 0
    assert "panic" not in said
    assert "the server does not allow" in said, said


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("scale deployment/web --replicas=2", 'deployments.apps "web" not found'),
        ("rollout restart deployment/web", 'deployments.apps "web" not found'),
        ("create configmap new", "could not find the requested resource"),
        ("create token default", "could not find the requested resource"),
        ("get secrets", 'the server doesn\'t have a resource type "secrets"'),
        ("logs box-7 -c nope", "container nope is not valid for pod box-7"),
        ("exec box-7 -c nope -- true", "container nope is not valid for pod box-7"),
        ("attach box-7", "can be attached to"),
    ],
)
@pytest.mark.e2e
def test_kubectl_names_what_is_not_there(boxes: RealFleet, arguments: str, error: str) -> None:
    ran = boxes.run_kubectl(*arguments.split())
    assert ran.returncode == 1
    assert error in ran.stderr.decode(), ran


def test_a_shape_is_what_answers_have_in_common() -> None:
    seen = common([shape({"a": 1, "b": [{"c": "x", "d": None}]}), shape({"a": 2, "b": [{"c": "y"}], "e": {}})])
    assert seen == {"a": "int", "b": [{"c": "str"}]}
    assert list(lacks(seen, {"a": "1", "b": [{}]})) == [".a: not int but '1'", ".b[0].c: not there"]
