"""What a stock kubectl prints for nodes, pods and the user's own rights."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.fleet import Fleet, box
from tests.support.kubectl import kubectl, start_kubectl
from tests.support.waits import scaled_s

pytestmark = pytest.mark.timeout(120)


async def _ok(fleet: Fleet, *args: str) -> str:
    ran = await kubectl(fleet.kubeconfig, *args)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out


def _rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


async def test_nodes_in_every_output(fleet: Fleet) -> None:
    header, *rows = _rows(await _ok(fleet, "get", "nodes"))
    assert header == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("box-7", "Ready", "0.1.0"),
        ("box-8", "NotReady", "0.1.0"),
        ("box-9", "Ready", "0.1.0"),
    ]
    wide = await _ok(fleet, "get", "nodes", "-o", "wide")
    for expected in ("INTERNAL-IP", "EXTERNAL-IP", "10.1.0.9", "198.51.100.7", "Debian GNU/Linux 13", "6.12.9"):
        assert expected in wide
    nodes = json.loads(await _ok(fleet, "get", "nodes", "-o", "json"))
    assert [item["metadata"]["name"] for item in nodes["items"]] == ["box-7", "box-8", "box-9"]
    assert nodes["items"][0]["status"]["nodeInfo"]["architecture"] == "arm64"
    assert "kind: Node" in await _ok(fleet, "get", "node", "box-7", "-o", "yaml")
    assert await _ok(fleet, "get", "no", "-o", "name") == "node/box-7\nnode/box-8\nnode/box-9\n"
    ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    assert await _ok(fleet, "get", "nodes", "-o", ready) == "True Unknown True"
    assert await _ok(fleet, "get", "nodes", "--chunk-size=1", "--sort-by=.metadata.name", "--no-headers", "-o", "name")
    assert "longline/site=north" in await _ok(fleet, "get", "nodes", "--show-labels")


async def test_pods_are_in_the_default_namespace_only(fleet: Fleet) -> None:
    header, *rows = _rows(await _ok(fleet, "get", "pods"))
    assert header == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [row[:3] for row in rows] == [
        ["box-7", "2/2", "Running"],
        ["box-8", "0/1", "AgentAway"],
        ["box-9", "0/1", "NotKnown"],
    ]
    assert _rows(await _ok(fleet, "get", "po", "-A"))[1][:2] == ["default", "box-7"]
    ran = await kubectl(fleet.kubeconfig, "get", "pods", "-n", "kube-system")
    assert (ran.code, ran.err.strip()) == (0, "No resources found in kube-system namespace.")
    assert "box-7" in (await _ok(fleet, "get", "all"))
    assert _rows(await _ok(fleet, "get", "ns", "--no-headers"))[0][:2] == ["default", "Active"]
    events = await kubectl(fleet.kubeconfig, "get", "events")
    assert (events.code, events.err.strip()) == (0, "No resources found in default namespace.")
    wide = _rows(await _ok(fleet, "get", "pods", "-o", "wide", "--no-headers"))
    assert wide[0][6] == "box-7"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nodes", "-l", "longline/site=north"], "node/box-7\n"),
        (["nodes", "-l", "longline/site in (north,south),kubernetes.io/os=linux"], "node/box-7\nnode/box-8\n"),
        (["nodes", "-l", "!longline/site"], "node/box-9\n"),
        (["nodes", "-l", "longline/site!=north,longline/site"], "node/box-8\n"),
        (["nodes", "--field-selector", "metadata.name=box-8"], "node/box-8\n"),
        (["pods", "--field-selector", "spec.nodeName=box-7"], "pod/box-7\n"),
        (["pods", "-A", "--field-selector", "status.phase!=Running,metadata.name!=box-9"], "pod/box-8\n"),
    ],
)
async def test_selectors(fleet: Fleet, arguments: list[str], names: str) -> None:
    assert await _ok(fleet, "get", *arguments, "-o", "name") == names


async def test_describe_prints_well(fleet: Fleet) -> None:
    node = await _ok(fleet, "describe", "node", "box-8")
    for expected in ("AgentAway", "Debian GNU/Linux 13", "HolderIdentity:  box-8", "Events:", "<none>"):
        assert expected in node
    assert "error" not in node.lower()
    pod = await _ok(fleet, "describe", "pod", "box-7")
    for expected in ("Status:", "Running", "app.log:", "host:", "Events:"):
        assert expected in pod
    assert "agent box-8 is not connected since 2026-01-02T03:04:05Z" in await _ok(fleet, "describe", "pod", "box-8")


async def test_rights_version_and_discovery(fleet: Fleet) -> None:
    assert (await _ok(fleet, "auth", "can-i", "create", "pods/exec")).strip() == "yes"
    assert (await _ok(fleet, "auth", "can-i", "get", "pods", "--subresource=log")).strip() == "yes"
    denied = await kubectl(fleet.kubeconfig, "auth", "can-i", "delete", "pods")
    assert (denied.code, denied.out.split()[0]) == (1, "no")
    assert "pods/exec" in await _ok(fleet, "auth", "can-i", "--list")
    assert "ann" in await _ok(fleet, "auth", "whoami")
    versions = json.loads(await _ok(fleet, "version", "-o", "json"))
    assert versions["clientVersion"]["minor"] == versions["serverVersion"]["minor"]
    assert "pods" in await _ok(fleet, "api-resources", "-o", "name")
    assert "is running at" in await _ok(fleet, "cluster-info")
    assert "condition met" in await _ok(fleet, "wait", "--for=condition=Ready", "node/box-7", "--timeout=5s")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("get pod nope", 'Error from server (NotFound): pods "nope" not found'),
        ("get node nope", 'Error from server (NotFound): nodes "nope" not found'),
        ("get node bxo-7", 'Error from server (NotFound): nodes "bxo-7" not found, did you mean box-7?'),
        ("get widgets", 'the server doesn\'t have a resource type "widgets"'),
        ("get pods -l a=b,", "unable to parse"),
        ("get pods --field-selector spec.bogus=1", "not a known field selector"),
        ("delete pod box-7 --wait=false", "Error from server (MethodNotAllowed): the server does not allow delete"),
        ("label node box-7 a=b", "MethodNotAllowed"),
        ("get --raw /api/v1/nodes?limit=x", "expected a whole number"),
        ("get --raw /api/v1/nodes?continue=x", "invalid continue token"),
        ("get --raw /nothing/here", "could not find the requested resource"),
        ("create -f -", "MethodNotAllowed"),
    ],
)
async def test_what_cannot_be_done_is_said_clearly(fleet: Fleet, arguments: str, error: str) -> None:
    body = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{}}'
    ran = await kubectl(fleet.kubeconfig, *arguments.split(), stdin=body)
    assert ran.code == 1
    assert error in ran.err


async def test_a_stranger_is_refused_and_a_token_is_enough(fleet: Fleet) -> None:
    ran = await kubectl(fleet.stranger_kubeconfig, "get", "nodes")
    assert ran.code == 1
    assert "must be logged in" in ran.err
    ran = await kubectl(fleet.token_kubeconfig, "auth", "whoami")
    assert "robot" in ran.out


async def test_watch_shows_changes_as_they_happen(fleet: Fleet) -> None:
    process = await start_kubectl(fleet.kubeconfig, "get", "nodes", "-w", "--no-headers")

    async def shown() -> list[str]:
        assert process.stdout is not None
        async with asyncio.timeout(scaled_s(10)):
            return (await process.stdout.readline()).decode().split()[:2]

    try:
        assert [await shown() for _ in range(3)] == [["box-7", "Ready"], ["box-8", "NotReady"], ["box-9", "Ready"]]
        fleet.registry.change("box-8", connected=True)
        assert await shown() == ["box-8", "Ready"]
        fleet.registry.change("box-7", connected=False)
        assert await shown() == ["box-7", "NotReady"]
        fleet.registry.put(box("box-10"))
        assert await shown() == ["box-10", "Ready"]
    finally:
        process.kill()
        await process.communicate()
