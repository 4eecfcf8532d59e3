"""What is measured, one function each; each returns named figures. Times come from the clients' side."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable

from benches.load import at_once, download, echo, opens, percentile, upload
from benches.rig import Rig
from tests.support.kubectl import kubectl_env
from tests.support.kubectl_choice import find_kubectl

MB = 1_000_000
GIB = 1 << 30
Figures = dict[str, float]


def throughput(rig: Rig, size_bytes: int) -> Figures:
    """One connection each way, and four down; beside a direct connection. CPU of each daemon for a GiB."""
    figures: Figures = {}
    for name, work, service in (("down", download, "source"), ("up", upload, "sink")):
        figures[f"direct {name} MB/s"] = work(getattr(rig.direct, service), size_bytes)
        before = rig.usage()
        figures[f"{name} MB/s"] = work(getattr(rig.tunnelled, service), size_bytes)
        after = rig.usage()
        for daemon, used in after.items():
            figures[f"{name} {daemon} CPU-s/GiB"] = (used.cpu_s - before[daemon].cpu_s) * GIB / size_bytes
    start = time.perf_counter()
    at_once(4, lambda: download(rig.tunnelled.source, size_bytes // 4))
    figures["4 down, sum MB/s"] = size_bytes / (time.perf_counter() - start) / 1e6
    return figures


def latency(rig: Rig, seconds: float) -> Figures:
    """Round trips of 64 bytes: direct, through the tunnel, and beside four downloads."""
    direct = echo(rig.direct.echo, seconds)
    idle = echo(rig.tunnelled.echo, seconds)
    busy = _beside(lambda: download(rig.tunnelled.source, 300 * MB), 4, lambda: echo(rig.tunnelled.echo, seconds))
    return {
        "direct echo p50 ms": percentile(direct, 0.5),
        "echo p50 ms": percentile(idle, 0.5),
        "echo p99 ms": percentile(idle, 0.99),
        "echo beside 4 down p50 ms": percentile(busy, 0.5),
        "echo beside 4 down p99 ms": percentile(busy, 0.99),
    }


def connections(rig: Rig, count: int) -> Figures:
    """Connections that are opened, used for one byte and closed."""
    start = time.perf_counter()
    at_once(64, lambda: opens(rig.tunnelled.echo, count // 16))
    at_64 = 64 * (count // 16) / (time.perf_counter() - start)
    return {"opens/s, serial": opens(rig.tunnelled.echo, count), "opens/s, 64 at once": at_64}


def memory(rig: Rig) -> Figures:
    """Resident memory of the daemons as they stand."""
    return {f"{daemon} RSS MB": used.rss_mb for daemon, used in rig.usage().items()}


def start_up(rig: Rig) -> Figures:
    """From `edge-agent run` to its session."""
    rig.box.agent.kill()
    start = time.perf_counter()
    rig.box.agent.start().wait_ready()
    return {"agent start to connected s": time.perf_counter() - start}


def kubectl_exec(rig: Rig) -> Figures:
    """`kubectl exec box-7 -- true`, beside what kubectl needs to do nothing."""
    kubectl = str(find_kubectl())
    environment = kubectl_env(rig.cluster.kubeconfig())
    figures: Figures = {}
    for name, words in (
        ("kubectl exec true s", ["exec", rig.box.name, "--", "true"]),
        ("kubectl version --client s", ["version", "--client"]),
    ):
        start = time.perf_counter()
        done = subprocess.run([kubectl, *words], check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        figures[name] = time.perf_counter() - start
    return figures


def slow_link(rig: Rig, rate_bytes_per_s: float, seconds: float) -> Figures:
    """Through the relay, which has been told rate, delay and queue: echo idle, beside one copy down, and the copy."""
    idle = echo(rig.tunnelled.echo, seconds / 2, 0.02)
    size_bytes = int(rate_bytes_per_s * seconds)
    speeds: list[float] = []
    copy = threading.Thread(target=lambda: speeds.append(download(rig.tunnelled.source, size_bytes)))
    copy.start()
    time.sleep(2.0)  # the first second belongs to the search for the link's rate
    busy = echo(rig.tunnelled.echo, seconds - 4.0, 0.02)
    copy.join()
    return {
        "echo idle p50 ms": percentile(idle, 0.5),
        "echo beside a copy p50 ms": percentile(busy, 0.5),
        "echo beside a copy p99 ms": percentile(busy, 0.99),
        "copy, share of the link": speeds[0] * 1e6 / rate_bytes_per_s,
    }


def _beside(load: Callable[[], float], count: int, measure: Callable[[], list[float]]) -> list[float]:
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            load()

    threads = [threading.Thread(target=repeat, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    try:
        return measure()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
