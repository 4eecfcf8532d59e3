"""The ways in, put together and listening, as the configuration says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_server.agents.registry import Registry
from cloud_server.config import ServerConfig, state_of
from cloud_server.frontends.connect import ConnectFrontend
from cloud_server.frontends.egress import EgressFrontend
from cloud_server.frontends.forward import Forward
from cloud_server.frontends.konnectivity.frontend import KonnectivityFrontend
from cloud_server.frontends.presented import PresentedCertificates
from cloud_server.frontends.socks import SocksFrontend
from cloud_server.opens.attempt import Dials
from cloud_server.opens.opener import Opener
from cloud_server.routing.cluster import ClusterIndex
from cloud_server.routing.router import Router
from cloud_server.trust.authenticator import Authenticator
from tunnel.aio.identity.tls_follow import TlsFollower
from tunnel.aio.identity.tls_material import LoadedTls, ServerTls
from tunnel.aio.process.command import VERSION
from tunnel.aio.process.log_sink import Lost
from tunnel.aio.process.parts import Parts
from tunnel.aio.sockets.listener import Handler, Listener
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.aio.sockets.metrics_endpoint import MetricsEndpoint
from tunnel.aio.sockets.tls_context import server_context

if TYPE_CHECKING:
    from cloud_server.frontends.fleet.server import FleetServer
    from cloud_server.operate.metrics import Metrics

METRICS = "metrics"
CONNECT_UNIX = "connect-unix"
CONNECT = "connect"
FLEET = "fleet"


class FrontEnds:
    """All listeners for users; those for agents are the carriers' business."""

    def __init__(
        self,
        config: ServerConfig,
        tls: ServerTls,
        registry: Registry,
        authenticator: Authenticator,
        cluster: ClusterIndex,
        parts: Parts,
        lost_lines: Callable[[], Lost],
        expiries: Callable[[], Mapping[str, datetime]],
        sockets: ListeningSockets,
    ) -> None:
        """What they need of the rest.

        Args:
            config: which there are.
            tls: the server's certificate.
            registry: of the agents.
            authenticator: tells who is asking.
            cluster: looked at for each dial; empty without a cluster.
            parts: keeps each of them up.
            lost_lines: what is missing in the log, for the metrics.
            expiries: when certificates end, for the metrics.
            sockets: that another process, or the service manager, may have handed over.
        """
        self._sockets = sockets
        self._config = config
        self._tls = tls
        self._named = _names_of(authenticator)
        self._parts = parts
        self._opener: Opener = registry
        self._metrics: Metrics | None = None
        if config.metrics.listen is not None:  # nothing is counted for nobody; the library costs 3 MB
            from cloud_server.opens.metered import MeteredOpener
            from cloud_server.operate.metrics import Metrics as Counting

            self._metrics = Counting(VERSION, registry, self._connections, lost_lines, parts.up, expiries)
            self._opener = MeteredOpener(registry, self._metrics)
        self._dials = Dials(self._opener, Router(registry, [route.policy for route in config.route], cluster))
        self._konnectivity = KonnectivityFrontend(self._dials, deadline_s=config.dial_timeout_s)
        self._fleet: FleetServer | None = None
        if config.fleet.listen is not None:  # it mirrors all agents, 4 kB each, and its code is 4 MB
            from cloud_server.frontends.fleet.server import FleetServer as Serving

            self._fleet = Serving(registry, self._opener, self._named)
        self._listeners: list[Listener] = []
        self._shown: TlsFollower | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}
        """By the names of their listeners."""
        self._presented = PresentedCertificates()
        self._draining = False

    @property
    def ports(self) -> dict[str, list[int]]:
        """Bound ports by the name of each listener that has any."""
        return {listener.name: listener.ports for listener in self._listeners if listener.ports}

    async def open(self) -> None:
        """Begin to listen. Each is a part of its own: one whose address cannot be had is tried again.

        Raises:
            CredentialsUnusable: the server's certificate cannot be used.
        """
        config, deadline_s = self._config, self._config.dial_timeout_s
        self._shown = await asyncio.to_thread(TlsFollower, self._tls, "users")
        self._contexts = await asyncio.to_thread(self._contexts_for, self._shown.loaded)
        connect = ConnectFrontend(self._dials, self._named, deadline_s=deadline_s)
        if config.connect.unix is not None:
            egress = EgressFrontend(connect.handle_unix, self._konnectivity.handle)
            self._want_unix(CONNECT_UNIX, egress.handle, config.connect.unix)
        if config.connect.listen is not None:
            self._want_tls(CONNECT, connect.handle_tls, config.connect.listen)
        if config.connect.listen_kubectl is not None:
            self._want_site_proxy(connect.handle_tls, config.connect.listen_kubectl)
        if config.socks.listen is not None:
            socks = SocksFrontend(self._dials, self._named, deadline_s=deadline_s)
            self._want_tcp("socks", socks.handle, config.socks.listen)
        if config.fleet.listen is not None and self._fleet is not None:
            self._want_tls(FLEET, self._fleet.handle, config.fleet.listen)
        for one in config.forward:
            forward = Forward(self._opener, one.listen, one.agent, one.tcp_target, deadline_s=deadline_s)
            self._want_tcp(f"forward {one.listen}", forward.handle, one.listen)
        if config.metrics.listen is not None and self._metrics is not None:
            not_ready = lambda: "draining" if self._draining else ""  # noqa: E731
            metrics = MetricsEndpoint(self._metrics.render, not_ready, self._parts.faults)
            self._want_tcp(METRICS, metrics.handle, config.metrics.listen)
        self._sockets.drop_unclaimed(listener.name for listener in self._listeners)

    async def run(self) -> None:
        """Follow the agents for the fleet API, if there is one, until cancelled."""
        await (self._fleet.run() if self._fleet is not None else asyncio.Event().wait())

    async def reload_certificate(self) -> None:
        """Show new connections what the certificate's files hold now, if that can be used."""
        loaded = await asyncio.to_thread(self._shown.poll) if self._shown is not None else None
        if loaded is None:
            return
        self._contexts = await asyncio.to_thread(self._contexts_for, loaded)
        for listener in self._listeners:
            if listener.name in self._contexts:
                listener.renew_context(self._contexts[listener.name])

    @property
    def undecided(self) -> int:
        """Clients that were accepted and have not come to what they want."""
        return sum(listener.undecided for listener in self._listeners if listener.name != METRICS)

    def close(self, *, everything: bool = False) -> None:
        """Take no more connections; those that run go on, and the metrics say so, unless `everything` is closed."""
        self._draining = True
        self._konnectivity.drain()
        if self._fleet is not None:
            self._fleet.drain()
        for listener in self._listeners:
            if everything or listener.name != METRICS:
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

    def _contexts_for(self, loaded: LoadedTls) -> dict[str, ssl.SSLContext]:
        """For the listeners that show the server's certificate. Blocking."""
        contexts = {CONNECT: server_context(loaded)}
        if self._fleet is not None:
            contexts[FLEET] = server_context(loaded, self._fleet.alpn_protocols)
        return contexts

    def _want_tcp(self, name: str, handler: Handler, address: str) -> None:
        listener = self._listener(name, handler)
        self._parts.want(name, lambda: listener.listen_tcp(address))

    def _want_tls(self, name: str, handler: Handler, address: str) -> None:
        listener = self._listener(name, self._presented.seen_by(handler))
        # The context of the moment: the certificate may be renewed before the address can be had.
        self._parts.want(name, lambda: listener.listen_tcp(address, self._contexts[name]))

    def _want_unix(self, name: str, handler: Handler, path: Path) -> None:
        listener = self._listener(name, handler)
        self._parts.want(name, lambda: listener.listen_unix(path))

    def _want_site_proxy(self, handler: Handler, address: str) -> None:
        from cloud_server.trust.site_proxy import site_proxy_context  # costs 12 MB

        listener = self._listener("connect-kubectl", handler)

        async def listen() -> None:
            await listener.listen_tcp(address, await asyncio.to_thread(site_proxy_context, state_of(self._config)))

        self._parts.want(listener.name, listen)

    def _listener(self, name: str, handler: Handler) -> Listener:
        listener = Listener(name, handler, sockets=self._sockets)
        self._listeners.append(listener)
        return listener


def _names_of(authenticator: Authenticator) -> Callable[[str | None, str | None], str | None]:
    """As front ends ask: from the URI of a client certificate and a bearer token to the user's name."""

    def authenticate(uri: str | None, token: str | None) -> str | None:
        caller = authenticator.by_certificate(uri, "") or authenticator.by_token(token)
        return caller.name if caller is not None else None

    return authenticate
