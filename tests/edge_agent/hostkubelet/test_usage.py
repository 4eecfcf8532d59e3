"""What a box says that it uses, from files of a kernel that a test wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_agent.hostkubelet import usage as module
from edge_agent.hostkubelet.usage import Usage

TICK_NS = 1_000_000_000 // 100


def _kernel(folder: Path, *, user: int = 100, idle: int = 1000) -> Path:
    (folder / "sys/kernel").mkdir(parents=True, exist_ok=True)
    # user nice system idle iowait irq softirq steal guest guest_nice
    (folder / "stat").write_text(f"cpu  {user} 1 20 {idle} 50 3 4 5 60 7\ncpu0 1 2 3\nintr 9\n")
    (folder / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nHugePages_Total: 0\n")
    (folder / "sys/kernel/pid_max").write_text("32768\n")
    (folder / "loadavg").write_text("0.1 0.2 0.3 2/345 6789\n")
    return folder


async def test_it_counts_what_is_neither_idle_nor_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK_NS", TICK_NS)
    monkeypatch.setattr(module, "BETWEEN_S", 0.01)
    summary = await Usage(_kernel(tmp_path), tmp_path).summary("box-7", "host")
    assert summary["node"]["cpu"]["usageCoreNanoSeconds"] == (100 + 1 + 20 + 3 + 4 + 5) * TICK_NS
    assert summary["node"]["cpu"]["usageNanoCores"] == 0
    memory = summary["node"]["memory"]
    assert (memory["workingSetBytes"], memory["availableBytes"]) == (600 * 1024, 400 * 1024)
    assert summary["node"]["rlimit"]["maxpid"] == 32768
    assert summary["node"]["rlimit"]["curproc"] == 345
    assert 0 < summary["node"]["fs"]["availableBytes"] < summary["node"]["fs"]["capacityBytes"]
    assert summary["pods"][0]["podRef"] == {"name": "box-7", "namespace": "default"}
    assert [item["name"] for item in summary["pods"][0]["containers"]] == ["host"]


async def test_use_is_between_two_looks_and_a_recent_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK_NS", TICK_NS)
    monkeypatch.setattr(module, "BETWEEN_S", 0.01)
    monkeypatch.setattr(module, "SHORTEST_S", 0.0)
    measured = Usage(_kernel(tmp_path), tmp_path)
    await measured.summary("box-7", None)
    _kernel(tmp_path, user=150)
    monkeypatch.setattr(module, "BETWEEN_S", 60.0)
    async with asyncio.timeout(10):
        summary = await measured.summary("box-7", None)
    cpu = summary["node"]["cpu"]
    assert cpu["usageNanoCores"] == pytest.approx(50 * TICK_NS / cpu["windowSeconds"], rel=0.2)
    assert summary["pods"] == []


@pytest.mark.parametrize(("file", "text"), [("stat", "intr 1\n"), ("meminfo", "nothing\n"), ("loadavg", "0 0\n")])
async def test_a_kernel_that_says_nothing_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    monkeypatch.setattr(module, "BETWEEN_S", 0.01)
    (_kernel(tmp_path) / file).write_text(text)
    with pytest.raises((ValueError, KeyError, IndexError)):
        await Usage(tmp_path, tmp_path).summary("box-7", "host")
