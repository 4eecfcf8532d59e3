"""Measures what the box uses of its processors, memory and disk, as a kubelet's `/stats/summary` says it.

It measures when it is asked, and does nothing in between.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.hostkubelet.units import kubernetes_time
from tunnel.aio.process.blocking import BlockingCalls

SHORTEST_S = 1.0
LONGEST_S = 60.0
"""The most seconds since the last look at the processors, of at least SHORTEST_S, for it to serve as the first of two:
their use is what happened between two looks. Otherwise two are taken for the one who asks."""
BETWEEN_S = 0.5
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_KIB = 1024
_IDLE_FIELDS = (3, 4)
"""The places of `idle` and `iowait` in the line `cpu` of /proc/stat (proc_stat(5))."""
_COUNTED_FIELDS = 8
"""How many fields are counted: those behind `steal` are in `user` and `nice` already."""


@dataclass(frozen=True, slots=True)
class _Look:
    """The use of the processors up to one moment."""

    at_s: float
    busy_ns: int
    """The nanoseconds since boot in which they were busy, all of them together."""


class Usage:
    """Measures this box."""

    def __init__(self, proc: Path = Path("/proc"), disk: Path = Path("/")) -> None:
        """Prepares the measuring; the file system that `disk` is in is the one that is reported."""
        self._proc = proc
        self._disk = disk
        self._calls = BlockingCalls("usage")
        self._last: _Look | None = None
        self._looking = asyncio.Lock()

    async def summary(self, name: str, host: str | None) -> dict[str, Any]:
        """Returns the answer to `/stats/summary`.

        Args:
            name: name of the node and of its pod.
            host: the container that stands for the box, whose use is the box's own; None: there is none.

        Raises:
            OSError, ValueError, LookupError: this box does not tell what it uses.
            NotAnswering: reading it hangs.
        """
        async with self._looking:
            before, after = await self._two_looks()
        window_s = after.at_s - before.at_s
        now = kubernetes_time(datetime.now(UTC))
        cpu = {
            "time": now,
            "usageNanoCores": max(round((after.busy_ns - before.busy_ns) / window_s), 0),
            "usageCoreNanoSeconds": after.busy_ns,
            "windowSeconds": round(window_s, 3),
        }
        rest = await self._calls.run(self._rest)
        memory = {"time": now, **rest["memory"]}
        node = {"nodeName": name, "cpu": cpu, "memory": memory, "fs": {"time": now, **rest["fs"]}}
        node["rlimit"] = {"time": now, **rest["rlimit"]}
        containers = [{"name": host, "cpu": cpu, "memory": memory}] if host is not None else []
        pod = {"podRef": {"name": name, "namespace": "default"}, "containers": containers}
        return {"node": node, "pods": [pod] if containers else []}

    # Internal

    async def _two_looks(self) -> tuple[_Look, _Look]:
        last, look = self._last, await self._look()
        if last is None or not SHORTEST_S <= look.at_s - last.at_s <= LONGEST_S:
            last = look
            await asyncio.sleep(BETWEEN_S)
            look = await self._look()
        self._last = look
        return last, look

    async def _look(self) -> _Look:
        text = await self._calls.run((self._proc / "stat").read_text)
        name, *counts = text.partition("\n")[0].split()
        if name != "cpu" or len(counts) < len(_IDLE_FIELDS):
            raise ValueError("/proc/stat does not begin with the sum of all processors")
        ticks = [int(count) for count in counts[:_COUNTED_FIELDS]]
        busy = sum(ticks) - sum(ticks[index] for index in _IDLE_FIELDS)
        return _Look(asyncio.get_running_loop().time(), busy * _TICK_NS)

    def _rest(self) -> dict[str, dict[str, int]]:
        lines = (self._proc / "meminfo").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
        total, available = kib["MemTotal"], kib.get("MemAvailable", kib["MemFree"])
        disk = os.statvfs(self._disk)
        return {
            "memory": {
                "availableBytes": available * _KIB,
                "usageBytes": (total - kib["MemFree"]) * _KIB,
                "workingSetBytes": (total - available) * _KIB,
            },
            "fs": {
                "availableBytes": disk.f_bavail * disk.f_frsize,
                "capacityBytes": disk.f_blocks * disk.f_frsize,
                "usedBytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
                "inodes": disk.f_files,
                "inodesFree": disk.f_ffree,
            },
            "rlimit": {
                "maxpid": int((self._proc / "sys/kernel/pid_max").read_text()),
                "curproc": int((self._proc / "loadavg").read_text().split()[3].partition("/")[2]),
            },
        }
