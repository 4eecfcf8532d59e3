"""`kubectl top`, `explain` and `cluster-info dump` found no resource: boxes are measured, described and listed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud_server.frontends.fleet import usage
from cloud_server.frontends.fleet.resources import RESOURCES
from tests.compat.fleets import RealFleet, compat_fleet
from tests.support.fleet import Fleet, pod_list
from tests.support.fleet_client import ask
from tunnel.aio.http.http1 import ServerConnection
from tunnel.aio.sockets.duplex import Duplex

NODES = "/apis/metrics.k8s.io/v1beta1/nodes"
PODS = "/apis/metrics.k8s.io/v1beta1/pods"
MIB, GIB = 1024**2, 1024**3


def _summary(**changes: Any) -> dict[str, Any]:
    """What a real kubelet answers to `/stats/summary`, cut down."""
    node = {
        "nodeName": "real",
        "cpu": {"time": "2026-01-02T03:04:05Z", "usageNanoCores": 250_000_000, "usageCoreNanoSeconds": 1},
        "memory": {"availableBytes": 50 * MIB, "usageBytes": 3 * GIB, "workingSetBytes": 2 * GIB},
        "fs": {"availableBytes": 1 * GIB, "capacityBytes": 16 * GIB, "usedBytes": 15 * GIB},
        "rlimit": {"maxpid": 32768, "curproc": 400},
    }
    container = {"name": "host", "cpu": {"usageNanoCores": 1000}, "memory": {"workingSetBytes": 4 * MIB}}
    young = {"name": "young", "cpu": {"usageNanoCores": 1000}}
    pod = {"podRef": {"name": "real", "namespace": "default"}, "containers": [container, young]}
    return {"node": {**node, **changes}, "pods": [pod]}


async def _real(duplex: Duplex) -> None:
    await _answering(duplex, json.dumps(_summary()).encode())


async def _broken(duplex: Duplex) -> None:
    await _answering(duplex, b'{"node": {"cpu": {"usageNanoCores": "many"}}}')


async def _diskless(duplex: Duplex) -> None:
    await _answering(duplex, b"")


async def _hanging(duplex: Duplex) -> None:
    await _answering(duplex, None)


async def _answering(duplex: Duplex, summary: bytes | None) -> None:
    connection = ServerConnection(duplex)
    while (request := await connection.next_request()) is not None:
        if request.path == "/pods":
            await connection.respond(200, [("content-type", "application/json")], pod_list("real", "host", "young"))
        elif summary == b"" and "only_cpu_and_memory" not in request.raw_query:
            await connection.respond(500, [("content-type", "text/plain")], b"failed to get rootFs stats")
        elif summary == b"":
            partial = {name: part for name, part in _summary()["node"].items() if name in ("cpu", "memory")}
            await connection.respond(
                200, [("content-type", "application/json")], json.dumps({"node": partial}).encode()
            )
        elif summary is None:
            await connection.wait_client_gone()
            break
        else:
            await connection.respond(200, [("content-type", "application/json")], summary)
    await duplex.aclose()


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(usage, "BOX_TIMEOUT_S", 1.5)
    async with compat_fleet(tmp_path, real=_real, broken=_broken, hanging=_hanging, diskless=_diskless) as running:
        yield running


async def test_boxes_are_measured_and_one_that_hangs_stalls_nobody(fleet: Fleet) -> None:
    started = time.monotonic()
    code, listed = await ask(fleet, NODES)
    assert (code, listed["kind"]) == (200, "NodeMetricsList")
    assert time.monotonic() - started < usage.ALL_TIMEOUT_S / 2
    found = {item["metadata"]["name"]: item for item in listed["items"]}
    assert set(found) == {"box-7", "diskless", "real"}
    assert set(found["diskless"]["usage"]) == {"cpu", "memory"}
    real = found["real"]["usage"]
    assert real == {"cpu": "250000000n", "memory": f"{2 * GIB // 1024}Ki", "ephemeral-storage": f"{15 * GIB // 1024}Ki"}
    assert found["real"]["window"] == "10.000s"
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < int(found["box-7"]["usage"]["memory"].removesuffix("Ki")) < total_kib
    assert int(found["box-7"]["usage"]["cpu"].removesuffix("n")) > 0

    asked = len(fleet.opener.opened)
    again = await ask(fleet, NODES)
    assert (again[1]["items"], len(fleet.opener.opened)) == (listed["items"], asked), "what is fresh is not asked for"


async def test_one_box_says_why_it_is_not_measured(fleet: Fleet) -> None:
    for name, code, text in (
        ("box-8", 503, "agent box-8 is away"),
        ("box-9", 404, "offers no kubelet"),
        ("broken", 502, "no usable statistics"),
        ("hanging", 504, "in time"),
        ("nope", 404, 'nodes.metrics.k8s.io "nope" not found'),
    ):
        refused, body = await ask(fleet, f"{NODES}/{name}")
        assert (name, refused) == (name, code)
        assert text in body["message"]
    code, body = await ask(fleet, f"{NODES}/real")
    assert (code, body["kind"]) == (200, "NodeMetrics")


async def test_pods_are_what_their_kubelets_measure(fleet: Fleet) -> None:
    _, pods = await ask(fleet, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=a%3Db")
    assert pods["items"] == []
    _, pods = await ask(fleet, PODS)
    found = {item["metadata"]["name"]: item["containers"] for item in pods["items"]}
    assert set(found) == {"box-7", "real"}
    assert found["real"] == [{"name": "host", "usage": {"cpu": "1000n", "memory": "4096Ki"}}]
    assert [container["name"] for container in found["box-7"]] == ["host"]


async def test_a_node_says_what_its_box_runs_short_of(fleet: Fleet) -> None:
    async def conditions(name: str) -> dict[str, str]:
        _, node = await ask(fleet, f"/api/v1/nodes/{name}")
        assert node["status"]["allocatable"] == node["status"]["capacity"]
        return {item["type"]: item["status"] for item in node["status"]["conditions"]}

    _, listed = await ask(fleet, "/api/v1/nodes")
    assert {item["status"] for item in listed["items"][0]["status"]["conditions"][:3]} == {"Unknown"}
    short = {"MemoryPressure": "True", "DiskPressure": "True", "PIDPressure": "False", "Ready": "True"}
    assert await conditions("real") == short
    assert (await conditions("box-8"))["DiskPressure"] == "Unknown"
    _, listed = await ask(fleet, "/api/v1/nodes")
    measured = next(item for item in listed["items"] if item["metadata"]["name"] == "real")
    assert measured["status"]["capacity"]["ephemeral-storage"] == f"{16 * GIB // 1024}Ki"


async def test_one_box_is_asked_once_for_all_that_want_to_know(fleet: Fleet) -> None:
    before = len(fleet.opener.opened)
    answers = await asyncio.gather(*(ask(fleet, f"{NODES}/box-7") for _ in range(5)))
    assert len({json.dumps(body) for _, body in answers}) == 1
    assert len(fleet.opener.opened) == before + 1


async def test_every_resource_is_described(fleet: Fleet) -> None:
    _, index = await ask(fleet, "/openapi/v3")
    for resource in RESOURCES:
        name = f"apis/{resource.group_version}" if resource.group else f"api/{resource.version}"
        code, document = await ask(fleet, index["paths"][name]["serverRelativeURL"])
        assert code == 200
        kinds = [
            operation["x-kubernetes-group-version-kind"]["kind"]
            for path, operations in document["paths"].items()
            if f"/{resource.name}" in path or resource.subresource
            for operation in operations.values()
        ]
        assert resource.kind in kinds
        text = json.dumps(document)
        for schema in {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}:
            assert schema in document["components"]["schemas"] or resource.subresource or "Options" in schema
    code, _ = await ask(fleet, "/openapi/v3/apis/nothing/v1")
    assert code == 404


async def test_what_a_node_and_a_pod_hold_is_described(fleet: Fleet) -> None:
    _, document = await ask(fleet, "/openapi/v3/api/v1")
    schemas = document["components"]["schemas"]
    for kind, path in (("Node", "/api/v1/nodes/box-7"), ("Pod", "/api/v1/namespaces/default/pods/box-7")):
        _, item = await ask(fleet, path)
        for part in ("metadata", "spec", "status"):
            (reference,) = schemas[f"io.k8s.api.core.v1.{kind}"]["properties"][part]["allOf"]
            known = schemas[reference["$ref"].rpartition("/")[2]]["properties"]
            unknown = set(item[part]) - set(known) - {"enableServiceLinks", "preemptionPolicy", "priority"}
            assert unknown == set(), (kind, part)


@pytest.mark.e2e
def test_kubectl_top(boxes: RealFleet) -> None:
    header, *rows = boxes.kubectl("top", "nodes").splitlines()
    assert header.split()[:2] == ["NAME", "CPU(cores)"]
    found = {row.split()[0]: row.split()[1:] for row in rows}
    assert found["box-8"][0] == "<unknown>"
    cpu, cpu_share, memory, memory_share = found["box-7"]
    assert (cpu[-1], cpu_share[-1], memory[-2:], memory_share[-1]) == ("m", "%", "Mi", "%")
    assert 0 < int(memory_share[:-1]) <= 100
    assert boxes.kubectl("top", "pods", "--containers").split()[4:6] == ["box-7", "host"]
    away = boxes.run_kubectl("top", "node", "box-8")
    assert (away.returncode, b"agent box-8 is away" in away.stderr) == (1, True)
    described = boxes.kubectl("describe", "node", "box-7")
    for expected in ("ephemeral-storage:", "MemoryPressure", "DiskPressure", "BoxHasSufficientPID"):
        assert expected in described


@pytest.mark.e2e
def test_kubectl_explain(boxes: RealFleet) -> None:
    node = boxes.kubectl("explain", "node")
    assert "KIND:       Node" in node
    assert "A box: an agent that has joined" in node
    assert "DESCRIPTION" in boxes.kubectl("explain", "pods.spec.containers.image")
    assert "osImage" in boxes.kubectl("explain", "node.status", "--recursive")
    assert "KIND:       NodeMetrics" in boxes.kubectl("explain", "nodes", "--api-version=metrics.k8s.io/v1beta1")
    for resource in ("leases", "events", "deployments", "namespaces"):
        assert "KIND:" in boxes.kubectl("explain", resource)
    missing = boxes.run_kubectl("explain", "node.spec.nothing")
    assert (missing.returncode, b'field "nothing" does not exist' in missing.stderr) == (1, True)


@pytest.mark.e2e
def test_kubectl_dumps_and_gets_all(boxes: RealFleet, tmp_path: Path) -> None:
    dump = boxes.kubectl("cluster-info", "dump", "--all-namespaces", timeout_s=60)
    for expected in (
        '"NodeList"',
        '"DeploymentList"',
        '"EventList"',
        "==== START logs for container app.log",
        "line 19",
    ):
        assert expected in dump
    boxes.kubectl("cluster-info", "dump", "--output-directory", str(tmp_path), timeout_s=60)
    assert (tmp_path / "nodes.json").exists()
    every = boxes.kubectl("get", "all")
    assert "pod/box-7" in every
    ran = boxes.run_kubectl("get", "deploy,ds,sts,rs,jobs,cronjobs,svc,rc,events", "-A")
    assert (ran.returncode, b"No resources found" in ran.stderr) == (0, True)
