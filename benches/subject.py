"""What is measured: a way to the same services, and the processes that it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil

from benches.services import Services


@dataclass(frozen=True, slots=True)
class Subject:
    """A tunnel, or no tunnel."""

    name: str
    services: Services
    """Its ports."""
    server: tuple[int, ...] = field(default=())
    """Process ids at the side of the clients; empty where there is none."""
    agent: tuple[int, ...] = field(default=())
    """Process ids at the side of the services."""

    def cpu_s(self) -> float:
        """What all its processes together have used."""
        times = [psutil.Process(pid).cpu_times() for pid in (*self.server, *self.agent)]
        return sum(each.user + each.system for each in times)

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each side."""
        sides = {"server": self.server, "agent": self.agent}
        return {
            side: sum(psutil.Process(pid).memory_info().rss for pid in pids) / 1e6
            for side, pids in sides.items()
            if pids
        }
