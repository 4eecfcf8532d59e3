"""The ways in, put together and listening, as the configuration says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloud_server.config import ServerConfig, state_of
from cloud_server.frontends.connect import ConnectFrontend
from cloud_server.frontends.egress import EgressFrontend
from cloud_server.frontends.forward import Forward
from cloud_server.frontends.konnectivity.frontend import KonnectivityFrontend
from cloud_server.frontends.opener import Opener
from cloud_server.frontends.socks import SocksFrontend
from cloud_server.identity.users import Users
from cloud_server.registry import Registry
from cloud_server.routing.attempt import Dials
from cloud_server.routing.cluster import ClusterIndex
from cloud_server.routing.router import Router
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.process.command import VERSION
from tunnel.aio.process.log_sink import Lost
from tunnel.aio.sockets.listener import Handler, Listener
from tunnel.aio.sockets.metrics_endpoint import MetricsEndpoint
from tunnel.aio.sockets.tls_context import server_context

if TYPE_CHECKING:
    from cloud_server.frontends.fleet.server import FleetServer
    from cloud_server.metrics import Metrics

METRICS = "metrics"
CONNECT_UNIX = "connect-unix"


class FrontEnds:
    """All listeners for users; those for agents are the carriers' business."""

    def __init__(
        self,
        config: ServerConfig,
        tls: ServerTls,
        registry: Registry,
        users: Users,
        cluster: ClusterIndex,
        lost_lines: Callable[[], Lost],
    ) -> None:
        """`cluster` is looked at for each dial; it is empty without a cluster. `lost_lines`: of the log, so far."""
        self._config = config
        self._tls = tls
        self._users = users
        self._opener: Opener = registry
        self._metrics: Metrics | None = None
        if config.metrics.listen is not None:  # nothing is counted for nobody; the library costs 3 MB
            from cloud_server.frontends.metered import MeteredOpener
            from cloud_server.metrics import Metrics as Counting

            self._metrics = Counting(VERSION, registry, self._connections, lost_lines)
            self._opener = MeteredOpener(registry, self._metrics)
        self._dials = Dials(self._opener, Router(registry, [route.policy for route in config.route], cluster))
        self._konnectivity = KonnectivityFrontend(self._dials, deadline_s=config.dial_timeout_s)
        self._fleet: FleetServer | None = None
        if config.fleet.listen is not None:  # it mirrors all agents, 4 kB each, and its code is 4 MB
            from cloud_server.frontends.fleet.server import FleetServer as Serving

            self._fleet = Serving(registry, self._opener, users.authenticate)
        self._listeners: list[Listener] = []
        self._draining = False

    @property
    def ports(self) -> dict[str, list[int]]:
        """Bound ports by the name of each listener that has any."""
        return {listener.name: listener.ports for listener in self._listeners if listener.ports}

    async def open(self) -> None:
        """Listen.

        Raises:
            ListenFailed, CredentialsUnusable, OSError: something cannot be opened.
        """
        config, deadline_s = self._config, self._config.dial_timeout_s
        context = await asyncio.to_thread(server_context, self._tls)
        connect = ConnectFrontend(self._dials, self._users.authenticate, deadline_s=deadline_s)
        if config.connect.unix is not None:
            egress = EgressFrontend(connect.handle_unix, self._konnectivity.handle)
            await self._listener(CONNECT_UNIX, egress.handle).listen_unix(config.connect.unix)
        if config.connect.listen is not None:
            await self._listener("connect", connect.handle_tls).listen_tcp(config.connect.listen, context)
        if config.connect.listen_kubectl is not None:
            from cloud_server.identity.site_proxy import site_proxy_context  # costs 12 MB

            own = await asyncio.to_thread(site_proxy_context, state_of(config))
            await self._listener("connect-kubectl", connect.handle_tls).listen_tcp(config.connect.listen_kubectl, own)
        if config.socks.listen is not None:
            socks = SocksFrontend(self._dials, self._users.authenticate, deadline_s=deadline_s)
            await self._listener("socks", socks.handle).listen_tcp(config.socks.listen)
        if config.fleet.listen is not None and self._fleet is not None:
            await self._listener("fleet", self._fleet.handle).listen_tcp(config.fleet.listen, context)
        for one in config.forward:
            forward = Forward(self._opener, one.listen, one.agent, one.tcp_target, deadline_s=deadline_s)
            await self._listener(f"forward {one.listen}", forward.handle).listen_tcp(one.listen)
        if config.metrics.listen is not None and self._metrics is not None:
            metrics = MetricsEndpoint(self._metrics.render, lambda: "draining" if self._draining else "")
            await self._listener(METRICS, metrics.handle).listen_tcp(config.metrics.listen)

    async def run(self) -> None:
        """Follow the agents for the fleet API, if there is one, until cancelled."""
        await (self._fleet.run() if self._fleet is not None else asyncio.Event().wait())

    def close(self) -> None:
        """Take no more connections; those that run go on, and the metrics say so."""
        self._draining = True
        self._konnectivity.drain()
        for listener in self._listeners:
            if listener.name != METRICS:
                listener.close()

    async def aclose(self) -> None:
        """Close what is open."""
        for listener in self._listeners:
            await listener.aclose()

    # Internal

    def _connections(self) -> dict[str, int]:
        connections = {listener.name: listener.connections for listener in self._listeners}
        if CONNECT_UNIX in connections:
            connections[CONNECT_UNIX] -= self._konnectivity.connections
            connections["konnectivity"] = self._konnectivity.calls
        return connections

    def _listener(self, name: str, handler: Handler) -> Listener:
        listener = Listener(name, handler)
        self._listeners.append(listener)
        return listener
