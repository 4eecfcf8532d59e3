"""Counts the figures of a server while its configuration wants them shown, and serves the page that shows them."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING

from cloud_server.config import ServerConfig
from cloud_server.followed_cluster import PART
from cloud_server.opens.door import Door
from tunnel.aio.carriers.native_log import HandshakeFailed, NativeEvent, Suppressed
from tunnel.aio.operate.desired_state import DesiredState
from tunnel.aio.process.command import VERSION
from tunnel.aio.sockets.handshake_fault import Cause
from tunnel.aio.sockets.metrics_endpoint import MetricsEndpoint

if TYPE_CHECKING:
    from cloud_server.operate.metrics import Metrics
    from cloud_server.server import CloudServer


class Counting:
    """The metrics of a server. Nothing is counted until a configuration says where to show it."""

    def __init__(self, server: CloudServer, door: Door) -> None:
        self.page = MetricsEndpoint(self._render, self._not_ready, self._remarks, self._checks)
        self.draining = False
        self.desired: DesiredState[ServerConfig] | None = None
        """The state of the configuration file and of what was applied of it; None while nobody follows a file."""
        self._agents_failed: Counter[Cause] = Counter(dict.fromkeys(Cause, 0))
        """TLS handshakes that failed at the agents' port so far, by cause."""
        self._server = server
        self._door = door
        self._metrics: Metrics | None = None

    @property
    def config_fault(self) -> str:
        """Returns why the configuration file cannot be used now; empty when it can."""
        return self.desired.fault if self.desired is not None else ""

    def saw(self, event: NativeEvent) -> None:
        """Counts a failed TLS handshake that gRPC's own code reported."""
        if isinstance(event, HandshakeFailed):
            self._agents_failed[event.fault.cause] += 1
        elif isinstance(event, Suppressed):
            self._agents_failed.update(event.handshakes)

    async def apply(self, config: ServerConfig) -> None:
        """Begins or ends the counting, as `config` says. Without an address for the page nothing is counted, since the
        library costs 3 MB. Counters begin at 0 each time.
        """
        if config.metrics.listen is None:
            self._metrics = None
            self._door.count_for(None)
        elif self._metrics is None:
            module = await asyncio.to_thread(import_module, "cloud_server.operate.metrics")
            self._metrics = module.Metrics(VERSION, self._sources(module))
            self._door.count_for(self._metrics)

    # Internal

    def _sources(self, module: object) -> object:
        server = self._server
        return module.Sources(  # type: ignore[attr-defined]  # imported when somebody looks
            agents=server.agents,
            live=server.live,
            logins=server.logins,
            audit=server.audit,
            connections=server.front_ends.connections,
            lost_lines=server.lost_lines,
            parts=server.parts.up,
            expiries=server.certificates.ends,
            unreadable=lambda: len(server.store.unreadable()),
            links=server.sessions,
            handshakes_failed=lambda: {"tunnel": self._agents_failed, **server.front_ends.handshakes_failed()},
            config=lambda: self.desired,
            cluster_ages_s=server.cluster.ages_s,
        )

    def _render(self) -> bytes:
        assert self._metrics is not None
        return self._metrics.render()

    def _not_ready(self) -> str:
        return "draining" if self.draining else ""

    def _remarks(self) -> list[str]:
        """Returns what a person should know of this server, and an orchestrator must not restart it for."""
        server = self._server
        told = [*server.parts.faults(), server.audit.fault, server.store.fault]
        if self.config_fault:
            told.append(f"the configuration file cannot be used, the one before stays: {self.config_fault}")
        if server.cluster.away:
            told.append(f"the cluster's API is away, going on with what is known: {server.cluster.away}")
        return [" ".join(line.split()) for line in told if line]

    def _checks(self) -> dict[str, str]:
        server = self._server
        checks = {part.name: "" if part.up else part.fault or "not tried yet" for part in server.parts.all()}
        if server.cluster.away:
            checks[PART] = server.cluster.away
        return {**checks, "config": self.config_fault, "audit": server.audit.fault, "store": server.store.fault}
