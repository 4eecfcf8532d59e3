"""Counts the figures of a server while its configuration wants them shown, and serves the page that shows them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING

from cloud_server.config import ServerConfig
from cloud_server.followed_cluster import PART
from cloud_server.opens.door import Door
from tunnel.aio.carriers.native_log import HandshakeFailed, NativeEvent, Suppressed
from tunnel.aio.http.metrics_endpoint import MetricsEndpoint
from tunnel.aio.identity.validity import Standing
from tunnel.aio.operate.desired_state import DesiredState
from tunnel.aio.process.version import VERSION
from tunnel.aio.sockets.handshake_fault import Cause

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
            strangers=server.front_ends.strangers,
            lost_lines=server.lost_lines,
            parts=server.parts.up,
            expiries=self._expiries,
            unreadable=lambda: len(server.store.unreadable()),
            links=server.sessions,
            handshakes_failed=lambda: {"tunnel": self._agents_failed, **server.front_ends.handshakes_failed()},
            config=lambda: self.desired,
            policy=lambda: server.followed_policy.state,
            cluster_ages_s=server.cluster.ages_s,
            limits=server.use_of_limits,
            calls_refused=lambda: server.carriers.refused if server.carriers is not None else {},
            connections_cut=lambda: server.carriers.cut if server.carriers is not None else {},
        )

    def _expiries(self) -> Mapping[str, datetime]:
        """Returns the ends of certificates by name: of the server's own, and of those of users that end soon."""
        near = {one.name: one.validity.not_after for one in self._server.users_near_end()}
        return {**near, **self._server.certificates.ends()}

    def _render(self) -> bytes:
        assert self._metrics is not None
        return self._metrics.render()

    def _not_ready(self) -> str:
        return "draining" if self.draining else ""

    def _remarks(self) -> list[str]:
        """Returns what a person should know of this server, and an orchestrator must not restart it for."""
        server = self._server
        told = [*server.parts.faults(), server.audit.fault, server.store.fault, *self._ending().values()]
        if self.config_fault:
            told.append(f"the configuration file cannot be used, the one before stays: {self.config_fault}")
        if fault := server.followed_policy.state.fault:
            told.append(f"the policy cannot be used: {fault}")
        if server.cluster.away:
            told.append(f"the cluster's API is away, going on with what is known: {server.cluster.away}")
        return [" ".join(line.split()) for line in told if line]

    def _checks(self) -> dict[str, str]:
        server = self._server
        checks = {part.name: "" if part.up else part.fault or "not tried yet" for part in server.parts.all()}
        if server.cluster.away:
            checks[PART] = server.cluster.away
        own = {
            "config": self.config_fault,
            "policy": server.followed_policy.state.fault,
            "audit": server.audit.fault,
            "store": server.store.fault,
        }
        return {**checks, **own, "certificates": "; ".join(self._ending().values())}

    def _ending(self) -> dict[str, str]:
        """Returns what ends within 30 days, the agents' and users' certificates among them."""
        server, now = self._server, datetime.now(UTC)
        told = {
            one.name: one.told(now)
            for one in (*server.certificates.watched, *server.users_near_end())
            if one.standing(now) is not Standing.GOOD
        }
        if late := len(server.certificates.late_agents):
            told["agents"] = f"{late} connected agent{'s' if late > 1 else ''} did not renew the certificate in time"
        return told
