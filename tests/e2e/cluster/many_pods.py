"""What it costs to know where each pod of a large cluster is, on a real kube-apiserver with etcd and no nodes.

`python -m tests.e2e.cluster.many_pods [PODS]`, as root, measures both ways that there are: to follow all pods, as
cloud-server does, and to ask for an address when somebody dials it. The pods are bound to 200 nodes that nobody runs,
and have the status that a kubelet would give them. docs/kubernetes-routing.md has the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import structlog
import yaml

from tests.e2e.cluster import build
from tests.e2e.cluster.control_plane import ControlPlane, control_plane
from tests.e2e.cluster.pki import ClusterPki
from tests.e2e.cluster.workplace import workplace
from tests.support.kubeconfig_files import client_context

NODES = 200
CALLS = 24
"""At a time, while pods are made."""
LOOKUPS = 200
CHANGES = 500
PODS = "/api/v1/namespaces/default/pods"
PATCH = {"content-type": "application/strategic-merge-patch+json"}
SELECTED = "fieldSelector=status.phase!%3DSucceeded,status.phase!%3DFailed"
LOOP_TICK_S = 0.001
WAIT_TICK_S = 0.05
"""Its own share of the CPU that is measured is to be none."""


def name(index: int) -> str:
    return f"shop-checkout-7c9f8b6d5c-{index:05d}"


def address(index: int) -> str:
    return f"10.{88 + index // 60000}.{index // 240 % 250}.{index % 240 + 1}"


def pod(index: int) -> dict[str, Any]:
    """As a Deployment of two containers makes it; the API server adds what it always does."""
    labels = {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/instance": "shop", "team": "payments"}
    owner = {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-checkout-7c9f8b6d5c",
        "uid": "00000000-0000-0000-0000-000000000001", "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "metadata": {
            "name": name(index), "labels": labels, "annotations": {"checksum/config": f"{index:064x}"},
            "ownerReferences": [owner],
        },
        "spec": {
            "nodeName": f"node-{index % NODES}",
            "containers": [_container("checkout"), _container("proxy")],
            "volumes": [{"name": "config", "configMap": {"name": "shop-checkout"}}],
        },
    }  # fmt: skip


def status(index: int, restarts: int) -> dict[str, Any]:
    """As its kubelet would have it."""
    at = "2026-01-01T00:00:00Z"
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    containers = [
        {
            "name": each, "image": f"registry.example.com/shop/{each}:1.2.3", "ready": True, "started": True,
            "imageID": f"registry.example.com/shop/{each}@sha256:{index:064x}", "restartCount": restarts,
            "containerID": f"containerd://{index:064x}", "lastState": {}, "state": {"running": {"startedAt": at}},
        }
        for each in ("checkout", "proxy")
    ]  # fmt: skip
    return {
        "status": {
            "phase": "Running", "hostIP": f"192.168.0.{index % NODES + 1}", "startTime": at, "qosClass": "Burstable",
            "podIP": address(index), "podIPs": [{"ip": address(index)}, {"ip": f"fd00::{index + 1:x}"}],
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": at} for kind in kinds],
            "containerStatuses": containers,
        }
    }  # fmt: skip


def _container(of: str) -> dict[str, Any]:
    settings = [{"name": f"SETTING_{number}", "value": f"value of setting {number}"} for number in range(8)]
    return {
        "name": of, "image": f"registry.example.com/shop/{of}:1.2.3", "env": settings,
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
        "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/shop"}],
    }  # fmt: skip


class Api:
    """The API server, and what it has used of the processor."""

    def __init__(self, client: httpx2.AsyncClient, process: psutil.Process) -> None:
        self.client = client
        self._process = process
        self._reports = itertools.count()

    def cpu_s(self) -> float:
        used = self._process.cpu_times()
        return float(used.user + used.system)

    async def make(self, count: int) -> None:
        """Make that many pods."""
        await self._ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        at_once = asyncio.Semaphore(CALLS)

        async def one(index: int) -> None:
            async with at_once:
                await self._ask("POST", f"{PODS}?fieldManager=kube-controller-manager", pod(index))
                await self.report(index)

        await asyncio.gather(*(one(index) for index in range(count)))

    async def report(self, index: int) -> None:
        """Do as a kubelet that has news of a pod."""
        news = status(index, next(self._reports))
        await self._ask("PATCH", f"{PODS}/{name(index)}/status?fieldManager=kubelet", news)

    async def _ask(self, method: str, url: str, content: dict[str, Any]) -> None:
        headers = PATCH if method == "PATCH" else {}
        (await self.client.request(method, url, json=content, headers=headers)).raise_for_status()


async def lookups(api: Api, count: int, at_once: int) -> None:
    """Ask for addresses, as a server that follows no pods would have to."""
    took_ms: list[float] = []
    free = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with free:
            started_s = time.monotonic()
            wanted = address(number * 37 % count)
            found = await api.client.get(f"/api/v1/pods?fieldSelector=status.podIP%3D{wanted}&resourceVersion=0")
            took_ms.append((time.monotonic() - started_s) * 1000)
            assert len(found.json()["items"]) == 1

    before_s = api.cpu_s()
    await asyncio.gather(*(one(number) for number in range(LOOKUPS)))
    cpu_ms = (api.cpu_s() - before_s) * 1000 / LOOKUPS
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    print(
        f"lookup, {at_once} at once: p50 {p50:.1f} ms, p99 {p99:.1f} ms; {cpu_ms:.1f} ms of CPU at the API server each"
    )


async def wire(api: Api) -> None:
    """What a list is on the wire."""
    on_wire, whole, rest = 0, 0, ""
    while True:
        url = f"/api/v1/pods?limit=100&{SELECTED}{f'&continue={rest}' if rest else ''}"
        async with api.client.stream("GET", url) as answer:
            body = b"".join([part async for part in answer.aiter_raw()])
        on_wire += len(body)
        content = gzip.decompress(body) if answer.headers.get("content-encoding") == "gzip" else body
        whole += len(content)
        if not (rest := json.loads(content)["metadata"].get("continue", "")):
            break
    one = len((await api.client.get(f"{PODS}/{name(0)}")).content)
    print(f"list: {on_wire / 1e6:.1f} MB on the wire, {whole / 1e6:.1f} MB of JSON; one pod, or change: {one} bytes")


@contextlib.asynccontextmanager
async def following(kubeconfig: Path, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that follows all pods as cloud-server does; it says a line when it has them, and another when asked."""
    argv = [sys.executable, "-m", "tests.e2e.cluster.many_pods", "follow", str(kubeconfig), str(count)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def followed(api: Api, kubeconfig: Path, count: int) -> None:
    """Follow them, while some change."""
    before_s = api.cpu_s()
    async with following(kubeconfig, count) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        print((await process.stdout.readline()).decode().strip())
        print(f"  at the API server {api.cpu_s() - before_s:.2f} s of CPU")
        for number in range(CHANGES):
            await api.report(number % count)
        last_s = time.monotonic()
        process.stdin.write(f"{CHANGES} {last_s}\n".encode())
        print((await process.stdout.readline()).decode().strip())


async def _measure(control: ControlPlane, count: int) -> None:
    config = yaml.safe_load(control.api.kubeconfig.read_text())
    context: ssl.SSLContext = client_context(config)
    async with httpx2.AsyncClient(base_url=control.api.server, verify=context, timeout=60) as client:
        api = Api(client, psutil.Process(control.api.daemon.pid))
        started_s = time.monotonic()
        await api.make(count)
        print(f"{count} pods made in {time.monotonic() - started_s:.0f} s")
        for at_once in (1, 10):
            await lookups(api, count, at_once)
        await wire(api)
        for _ in range(3):
            await followed(api, control.api.kubeconfig, count)


@contextlib.contextmanager
def _control() -> Iterator[ControlPlane]:
    programs = build.programs()
    with workplace([]) as folder:
        pki = ClusterPki(folder / "pki")
        with control_plane(folder / "cloud", programs, pki, address="127.0.0.1", nodes=[]) as made:
            made.start()
            made.api.wait_ready()
            yield made


async def _follow(kubeconfig: Path, count: int) -> None:
    """What the process of `following` does."""
    from cloud_server.kubernetes.follow import Follower
    from cloud_server.kubernetes.lightkube_access import LightkubeAccess
    from cloud_server.kubernetes.objects import KubernetesObject, Pod
    from cloud_server.routing.cluster import ClusterIndex
    from tunnel.aio.process import malloc

    class Counting(ClusterIndex):
        changes = 0
        changed_s = 0.0

        def put(self, one: KubernetesObject) -> None:
            super().put(one)
            self.changes += isinstance(one, Pod)
            self.changed_s = time.monotonic()

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    malloc.tune()
    own = psutil.Process()
    access, index = LightkubeAccess.from_kubeconfig(kubeconfig), Counting()
    longest_s = 0.0

    async def watch_the_loop() -> None:
        nonlocal longest_s
        while True:
            before_s = time.thread_time()  # not the clock's: other programs' turns are no work of the loop
            await asyncio.sleep(LOOP_TICK_S)
            longest_s = max(longest_s, time.thread_time() - before_s)

    async def commands() -> str:
        return await asyncio.to_thread(sys.stdin.readline)

    rss, cpu, started_s = own.memory_info().rss, sum(own.cpu_times()[:2]), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(watch_the_loop()), tasks.create_task(Follower(access, index).run())]
        while index.changes < count:
            await asyncio.sleep(WAIT_TICK_S)
        took_s, cpu_s = time.monotonic() - started_s, sum(own.cpu_times()[:2]) - cpu
        grown = (own.memory_info().rss - rss) / 1e6
        print(
            f"followed: known after {took_s:.2f} s, {cpu_s:.2f} s of CPU here,"
            f" at most {longest_s * 1000:.0f} ms of it at a stretch, {grown:.1f} MB more memory",
            flush=True,
        )
        beside.pop(0).cancel()
        index.changes, longest_s, cpu = 0, 0.0, sum(own.cpu_times()[:2])
        if words := (await commands()).split():
            while index.changes < int(words[0]):
                await asyncio.sleep(WAIT_TICK_S)
            late_ms = (index.changed_s - float(words[1])) * 1000
            each_ms = (sum(own.cpu_times()[:2]) - cpu) * 1000 / int(words[0])
            grown = (own.memory_info().rss - rss) / 1e6
            print(
                f"  {words[0]} changes: {each_ms:.2f} ms of CPU here each, the last one known {late_ms:.1f} ms after it"
                f" was acknowledged, {grown:.1f} MB",
                flush=True,
            )
        await commands()
        for task in beside:
            task.cancel()
    await access.aclose()


def main(argv: list[str]) -> None:
    """Measure, and print."""
    if argv[:1] == ["follow"]:
        asyncio.run(_follow(Path(argv[1]), int(argv[2])))
        return
    with _control() as control:
        asyncio.run(_measure(control, int(argv[0]) if argv else 10_000))


if __name__ == "__main__":
    # Not the machine's own proxies, whatever they are for.
    for word in [word for word in os.environ if word.lower().endswith("_proxy")]:
        del os.environ[word]
    main(sys.argv[1:])
