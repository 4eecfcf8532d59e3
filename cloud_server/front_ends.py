"""Puts the front ends together, and makes them match a configuration again and again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_server.agents.agents import Agents
from cloud_server.config import ServerConfig
from cloud_server.frontends.connect import ConnectFrontend
from cloud_server.frontends.egress import EgressFrontend
from cloud_server.frontends.forward import FRONTEND as FORWARD
from cloud_server.frontends.forward import Forward
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.frontends.presented import PresentedCertificates
from cloud_server.frontends.socks import SocksFrontend
from cloud_server.listeners import Listeners, Serving
from cloud_server.opens.door import Door
from cloud_server.opens.live import LiveOpen, LiveOpens
from cloud_server.opens.policy import DoorPolicy
from cloud_server.trust.authenticator import Authenticator
from cloud_server.wanted import CONNECT, CONNECT_UNIX, FLEET, METRICS, forwards, places
from tunnel.aio.http.metrics_endpoint import MetricsEndpoint
from tunnel.aio.identity.tls_follow import TlsFollower
from tunnel.aio.identity.tls_material import LoadedTls, ServerTls
from tunnel.aio.identity.validity import Watched
from tunnel.aio.operate.admin import Routes
from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.process.parts import Parts
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.handshake_fault import Cause
from tunnel.aio.sockets.listener import Handler
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.aio.sockets.tls_context import server_context
from tunnel.core.wire.errors import Code, OpenRefused

if TYPE_CHECKING:
    from cloud_server.frontends.fleet.server import FleetServer
    from cloud_server.frontends.konnectivity.frontend import KonnectivityFrontend


class FrontEnds:
    """All that clients come in by. Call `apply` with the first configuration, and again with each later one."""

    def __init__(
        self,
        state: Path,
        authority: Path,
        tls: ServerTls,
        agents: Agents,
        door: Door,
        policy: DoorPolicy,
        live: LiveOpens,
        authenticator: Authenticator,
        logins: RefusedLogins,
        audit: Audit,
        parts: Parts,
        sockets: ListeningSockets,
        page: MetricsEndpoint,
        admin: Routes,
        watch: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """Opens nothing yet. The arguments are what the front ends need of the rest of the server.

        Args:
            state: the state folder.
            authority: the folder of the authority.
            tls: the server's certificate.
            agents: the agents that the fleet API shows.
            door: opens their streams.
            policy: decides what does not go through the door.
            live: the opens that run. A change of a front end may end some.
            authenticator: tells who is asking.
            logins: is told of clients that could not show who they are.
            audit: takes the records of what is read.
            parts: keeps each front end up.
            sockets: the sockets that another process, or the service manager, may have handed over.
            page: the metrics, for the listener that shows them.
            admin: the calls about the server itself that users may make, at the fleet API's listener.
            watch: is given each task that may not end by itself.
        """
        self._state = state
        self._authority = authority
        self._tls = tls
        self._agents = agents
        self._door = door
        self._policy = policy
        self._live = live
        self._authenticator = authenticator
        self._logins = logins
        self._audit = audit
        self._page = page
        self._admin = admin
        self._watch = watch
        self._sockets = sockets
        self._listeners = Listeners(parts, sockets)
        # Their deadlines come with the configuration.
        self._connect = ConnectFrontend(door, authenticator, logins, deadline_s=0)
        self._socks = SocksFrontend(door, authenticator, logins, deadline_s=0)
        self._forwards: dict[str, Forward] = {}
        self._konnectivity: KonnectivityFrontend | None = None
        """None until its first connection."""
        self._draining = False
        self._fleet: FleetServer | None = None
        self._fleet_tasks: TaskOwner | None = None
        self._shown: TlsFollower | None = None
        self._presented = PresentedCertificates()
        self._recorded = authenticator.recorded

    @property
    def ports(self) -> dict[str, list[int]]:
        """Returns the bound ports by the name of each listener that has any."""
        return self._listeners.ports

    def connections(self) -> dict[str, int]:
        """Returns how many clients each listener serves, by its name. Calls of konnectivity are counted apart from the
        unix socket that they come by.
        """
        connections = self._listeners.connections()
        if CONNECT_UNIX in connections:
            konnectivity = self._konnectivity
            connections[CONNECT_UNIX] -= konnectivity.connections if konnectivity is not None else 0
            connections["konnectivity"] = konnectivity.calls if konnectivity is not None else 0
        return connections

    def strangers(self) -> Mapping[str, int]:
        """Returns how many clients have not shown who they are, by the name of each listener that asks them."""
        return self._listeners.strangers()

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much of each limit of clients, and of the fleet API while there is one, is used."""
        yield from self._listeners.use_of_limits()
        if self._fleet is not None:
            yield from self._fleet.use_of_limits()

    def handshakes_failed(self) -> Mapping[str, Mapping[Cause, int]]:
        """Returns how many TLS handshakes failed so far, by the name of each listener with TLS and by cause."""
        return self._listeners.handshakes_failed

    async def apply(self, config: ServerConfig) -> int:
        """Makes the front ends match a configuration. Each listener is a part of its own: it is opened when it can be.
        What runs goes on, except the connections of a forward that is gone or leads elsewhere.

        Returns:
            How many connections were ended.

        Raises:
            CredentialsUnusable: the server's certificate cannot be used; only at the first call.
        """
        first = self._shown is None
        if self._shown is None:
            self._shown = await asyncio.to_thread(TlsFollower, self._tls, "users")
        for front_end in (self._connect, self._socks, self._konnectivity):
            if front_end is not None:
                front_end.deadline_s = config.dial_timeout_s
        self._listeners.limit(config.limits.client_limits, config.limits.stranger_limits)
        await self._apply_fleet(config)
        gone = self._apply_forwards(config)
        await self._listeners.apply(places(config), self._serving)
        if first:
            self._sockets.drop_unclaimed(places(config))
        return self._end_forwards(config) if gone else 0

    async def reload_certificate(self) -> None:
        """Loads the certificate's files again when they changed, and shows the new certificate to new connections, if
        it can be used.
        """
        loaded = await asyncio.to_thread(self._shown.poll) if self._shown is not None else None
        if loaded is not None:
            contexts = {name: await asyncio.to_thread(self._context, name, loaded) for name in (CONNECT, FLEET)}
            self._listeners.renew_contexts(contexts)

    def users_near_end(self) -> list[Watched]:
        """Returns certificates of users of an authority of the user's own, seen in use, whose end is near."""
        return self._presented.near_end()

    def rights_changed(self) -> None:
        """Ends what shows more, or less, than what the policy allows now."""
        if self._fleet is not None:
            self._fleet.rights_changed()

    def relabelled(self, agent: str) -> None:
        """Tells that the operator has set labels of a box.

        What shows more, or less, than the policy allows now ends soon.
        """
        if self._fleet is not None:
            self._fleet.relabelled(agent)

    @property
    def undecided(self) -> int:
        """Returns how many clients were accepted and have not said what they want yet."""
        return self._listeners.undecided(but=METRICS)

    def close(self, *, everything: bool = False) -> None:
        """Takes no more connections. Those that run go on, and the metrics page goes on to show them, unless
        `everything` is closed.
        """
        self._draining = True
        if self._konnectivity is not None:
            self._konnectivity.drain()
        if self._fleet is not None:
            self._fleet.drain()
        self._listeners.close(but="" if everything else METRICS)

    async def aclose(self) -> None:
        """Closes all listeners and the fleet API."""
        await self._listeners.aclose()
        await self._stop_fleet()

    # Internal - what listeners serve

    def _serving(self, name: str) -> Serving:
        match name:
            case "connect-unix":
                return Serving(EgressFrontend(self._connect.handle_unix, self._handle_konnectivity).handle)
            case "connect":
                return self._secured(name, self._connect.handle_tls)
            case "connect-kubectl":
                return Serving(self._connect.handle_tls, self._site_proxy_context, for_users=True)
            case "socks":
                return Serving(self._socks.handle, for_users=True)
            case "fleet":
                assert self._fleet is not None
                return self._secured(name, self._fleet.handle)
            case "metrics":
                return Serving(self._page.handle)
        return Serving(self._forwards[name].handle)

    async def _handle_konnectivity(self, conn: Conn) -> None:
        if self._konnectivity is None:  # it comes with HTTP/2, 2 MB that most servers do without
            module = await asyncio.to_thread(import_module, "cloud_server.frontends.konnectivity.frontend")
            if self._konnectivity is None:  # no other connection was faster
                deadline_s = self._connect.deadline_s
                self._konnectivity = module.KonnectivityFrontend(self._door, self._authenticator, deadline_s=deadline_s)
                if self._draining:
                    self._konnectivity.drain()
        await self._konnectivity.handle(conn)

    def _secured(self, name: str, handler: Handler) -> Serving:
        async def context() -> ssl.SSLContext:
            # Of the moment: the certificate may be renewed before the address can be had.
            assert self._shown is not None
            return await asyncio.to_thread(self._context, name, self._shown.loaded)

        seen = handler if self._recorded else self._presented.seen_by(handler)
        return Serving(seen, context, for_users=True)

    def _context(self, name: str, loaded: LoadedTls) -> ssl.SSLContext:
        """Returns the TLS context of a listener that shows the server's certificate. Blocks."""
        if name == FLEET and self._fleet is not None:
            return server_context(loaded, self._fleet.alpn_protocols)
        return server_context(loaded)

    async def _site_proxy_context(self) -> ssl.SSLContext:
        from cloud_server.trust.site_proxy import site_proxy_context  # costs 12 MB

        return await asyncio.to_thread(site_proxy_context, self._state, self._authority)

    # Internal - the fleet API

    async def _apply_fleet(self, config: ServerConfig) -> None:
        if config.fleet.listen is None:
            await self._stop_fleet()
        elif self._fleet is None:  # it mirrors all agents, 4 kB each, and its code is 4 MB
            module = await asyncio.to_thread(import_module, "cloud_server.frontends.fleet.server")
            fleet = module.FleetServer(
                self._agents,
                self._door,
                self._policy,
                self._authenticator,
                self._logins,
                self._audit,
                admin=self._admin,
                limits=config.limits.pods,
                heads=config.limits.heads,
            )
            self._fleet = fleet
            self._fleet_tasks = TaskOwner("fleet")
            self._watch(self._fleet_tasks.spawn("run", fleet.run()))
        else:
            self._fleet.limit(config.limits.pods, config.limits.heads)

    async def _stop_fleet(self) -> None:
        """Ends the fleet API: its clients are asked to go, and what runs through it goes on."""
        if self._fleet is not None and self._fleet_tasks is not None:
            self._fleet.drain()
            await self._fleet_tasks.aclose()
            self._fleet = self._fleet_tasks = None

    # Internal - forwards

    def _apply_forwards(self, config: ServerConfig) -> bool:
        """Points each forward where it is to lead. Returns whether any is gone or leads elsewhere."""
        wanted = forwards(config)
        gone = bool(self._forwards.keys() - wanted.keys())
        for name in self._forwards.keys() - wanted.keys():
            del self._forwards[name]
        for name, one in wanted.items():
            forward = self._forwards.get(name)
            if forward is None:
                caller = self._authenticator.static_forward(one.listen)
                forward = self._forwards[name] = Forward(self._door, caller, one.agent, one.tcp_target)
            gone |= forward.lead_to(one.agent, one.tcp_target)
            forward.deadline_s = config.dial_timeout_s
        return gone

    def _end_forwards(self, config: ServerConfig) -> int:
        """Ends the connections of forwards that are gone or lead elsewhere, and returns how many. Nobody is asked who
        they are at a forward: where it leads is all that they may reach.
        """
        wanted = {(str(one.listen), one.agent, one.tcp_target) for one in config.forward}

        def is_gone(live: LiveOpen) -> bool:
            request = live.request
            if request.frontend != FORWARD or request.route is None:
                return False
            return (request.caller.name, *request.route) not in wanted

        return self._live.end_where(
            is_gone, OpenRefused("the forward is gone, or leads elsewhere now", Code.NOT_ALLOWED)
        )
