"""The running agent: its parts, and `apply`, which makes them match a configuration. Its start is the first `apply`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from edge_agent.config import AgentConfig, ListenConfig, named_targets
from edge_agent.link import box
from edge_agent.link.addresses import Addresses
from edge_agent.link.clock import ClockWatch
from edge_agent.link.greeting import Box
from edge_agent.link.links import Links
from edge_agent.link.listen import LocalListen
from edge_agent.operate.facts import Facts, on_the_wire
from edge_agent.operate.link_book import LinkBook
from edge_agent.operate.records import RecordedStreams
from edge_agent.operate.telling import Telling
from edge_agent.operate.traffic import Traffic
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier import DialOptions
from tunnel.aio.exits.acceptor import Request, Service, StreamAcceptor
from tunnel.aio.exits.policy import Policy
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.limit_use import LimitUse, most
from tunnel.aio.process.logs import set_level
from tunnel.aio.process.parts import Part, Parts
from tunnel.aio.process.sd_notify import notify
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.process.version import VERSION
from tunnel.aio.sockets.listener import Handler, Listener, settled
from tunnel.aio.sockets.unit_sockets import UnitSockets
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.faults import API_SERVER_AWAY, CLOCK_WRONG
from tunnel.core.wire.limits import SESSION_ID_BYTES
from tunnel.core.wire.names import KUBELET, OLD_KUBELET
from tunnel.core.wire.target import ServiceTarget, Target

if TYPE_CHECKING:
    from edge_agent.autonomy.proxy import ApiProxy
    from edge_agent.hostkubelet.server import HostKubelet
    from edge_agent.real_kubelet import RealKubelet

CLOCK = "clock"
API_SERVER = "api-server"
AUTONOMY = "autonomy"
"""The listener of the API proxy, which a socket unit names by `FileDescriptorName=`."""
_KUBELETS = (KUBELET, OLD_KUBELET)

_log = structlog.get_logger("edge.agent")


@dataclass(slots=True)
class _Open:
    """A listener that the configuration asks for, and the part that brings it up."""

    listener: Listener
    part: Part


class Agent:
    """The parts of one agent.

    The caller calls `apply` first, then runs `links` and `telling`, and calls `aclose` at the end.
    """

    def __init__(
        self,
        name: str,
        tls: ClientTls,
        config: AgentConfig,
        audit: Audit,
        page: Callable[[], Handler],
        sockets: UnitSockets | None = None,
    ) -> None:
        """Reads what the state folder keeps, and dials or listens on nothing before `apply`. Blocks.

        Args:
            name: the agent's name, from its certificate.
            tls: the certificate and key that it shows to servers, and the authority that it trusts.
            config: what holds from the start to the end: the state folder. All else comes by `apply`.
            audit: takes the records.
            page: makes what serves the page of metrics, when one is wanted.
            sockets: those that a socket unit has for it; None when there are none.
        """
        assert config.state is not None
        self.name = name
        self.config = config
        self.facts = Facts()
        self.parts = Parts()
        self.traffic = Traffic()
        self.book = LinkBook(self.facts, self._linked)
        self.clock = ClockWatch(self._clock_said)
        self._audit = audit
        self._addresses = Addresses(config.state, self.book.dns)
        self._host: HostKubelet | None = None
        self._host_part: Part | None = None
        self._kubelet: RealKubelet | None = None
        self._acceptor = StreamAcceptor(Policy([]), {})
        self._listeners: dict[ListenConfig, _Open] = {}
        self._metrics: _Open | None = None
        self._api: list[_Open] = []
        """The listeners of the API proxy, one for each address."""
        self._api_proxy: ApiProxy | None = None
        self._sockets = sockets or UnitSockets()
        self._page = page
        self._tasks = TaskOwner("agent")
        self._session_limits = config.limits.session
        self.memory = Budget(total_bytes=config.limits.stream_memory_bytes)
        """What windows, queues and kept packets of all streams may take together."""
        streams = RecordedStreams(self._acceptor, audit, self.traffic, self._records_itself)
        self.links = Links(
            config.cloud.servers,
            Box(
                tls=tls,
                addresses=self._addresses,
                acceptor=streams.accept,
                describe=lambda: self.telling.for_hello(),  # noqa: PLW0108 - it is made of the links
                version=VERSION,
                limits=self._session_limits,
                memory=self.memory,
                instance_id=os.urandom(SESSION_ID_BYTES),
            ),
            self.dial_options(config),
            self.book,
        )
        self.telling = Telling(lambda: self.links.session, self._describe, self.links.reconnect)
        self.facts.on_change = self.telling.changed

    # Public

    def dial_options(self, config: AgentConfig) -> DialOptions:
        """Returns how servers are dialled by a configuration."""
        return DialOptions(proxy=config.cloud.proxy, on_clock=self.clock.look)

    async def apply(self, old: AgentConfig, new: AgentConfig) -> None:
        """Makes the running agent match another configuration. What the new one still allows goes on."""
        self.config = new
        self.memory.total_bytes = new.limits.stream_memory_bytes
        if new.log.level != old.log.level:
            set_level(new.log.level)
        for one in self._opened():
            one.listener.limits = new.limits.client_limits
        host = self._host
        ended = self._apply_host(new)
        self._apply_kubelet(new)
        ended += self._acceptor.replace(
            Policy([allow.rule for allow in new.allow]), self._services(), named_targets(new)
        )
        if ended:
            _log.info("connections ended that are not allowed any more", connections=ended)
        if host is not None and self._host is None:
            await host.aclose()
        await self._apply_listen(new)
        await self._apply_metrics(old, new)
        await self._apply_autonomy(old, new)
        if old.cloud != new.cloud:
            self.links.follow(new.cloud.servers, self.dial_options(new))
        self.telling.changed(must_arrive=True)

    def stop(self) -> None:
        """Brings up no more parts, and closes all listeners but those of the API proxy: the node's components are
        answered until the streams of others have ended.
        """
        self.parts.stop()
        for one in self._opened():
            if one not in self._api:
                one.listener.close()

    async def aclose(self) -> None:
        """Ends what is left, in order where that is quick."""
        await self.links.finish()
        await self.parts.aclose()
        if self._api_proxy is not None:
            await self._end_api(self._api_proxy, self._api)
        for one in self._opened():
            await one.listener.aclose()
        if self._api_proxy is not None:
            await self._api_proxy.aclose()
        await self._tasks.aclose()
        await self.links.aclose()
        await self._addresses.aclose()
        if self._host is not None:
            await self._host.aclose()
        self._sockets.close()

    @property
    def services(self) -> list[str]:
        """Returns the names that streams may ask for."""
        return [*self._services(), *named_targets(self.config)]

    def use_of_limits(self) -> list[LimitUse]:
        """Returns how much of each limit of `[limits]` is used now."""
        limits, session = self.config.limits, self.links.session
        streams = session.core.peer_stream_count if session is not None else 0
        clients = most(one.listener.connections for one in self._opened())
        return [
            LimitUse("stream_memory_bytes", self.memory.total_bytes, self.memory.used_bytes),
            LimitUse("streams", self._session_limits.max_streams, streams),
            LimitUse("clients", limits.clients, clients),
            *(self._host.use_of_limits() if self._host is not None else ()),
        ]

    # Internal

    def _describe(self) -> tunnel_pb2.Node:
        return box.describe(self.config.labels, self.services, on_the_wire(self.facts.all()))

    def _clock_said(self, fault: str) -> None:
        if fault:
            self.facts.set(CLOCK, CLOCK_WRONG, fault)
        else:
            self.facts.clear(CLOCK)

    def _apply_host(self, new: AgentConfig) -> int:
        """Makes the built-in kubelet match the configuration; there is none where it has nothing to offer.

        Commands wait for their account, which may come from a directory service that is not there yet.

        Returns:
            How many commands and logs were ended because the box offers them no more.
        """
        if self._host_part is not None:
            self.parts.forget(self._host_part)
            self._host_part = None
        host, settings = self._host, new.host.settings(new.state)
        ended = 0
        if host is not None:
            host.limit(new.limits.kubelet)
            ended = host.apply(settings)
        if not new.host.offered:
            self._host = None
            return ended
        if host is None:
            from edge_agent.hostkubelet.server import HostKubelet  # costs 3 MB with what it needs
            from edge_agent.hostkubelet.spawn import unblock_signals_of_commands

            unblock_signals_of_commands()
            dial = partial(self._acceptor.dialled, through=KUBELET)
            host = self._host = HostKubelet(self.name, settings, self._audit, dial, limits=new.limits.kubelet)
        if new.host.exec:
            self._host_part = self.parts.want("host.exec", host.find_accounts)
        return ended

    def _apply_kubelet(self, new: AgentConfig) -> None:
        """Makes the way to a real kubelet match the configuration.

        One at another address counts as another kubelet: connections to the old one end.
        """
        if new.kubelet is None:
            self._kubelet = None
        elif self._kubelet is None or self._kubelet.settings.address != new.kubelet.address:
            from edge_agent.real_kubelet import RealKubelet

            self._kubelet = RealKubelet(new.kubelet)
        else:
            self._kubelet.settings = new.kubelet

    def _services(self) -> dict[str, Service]:
        if self._kubelet is not None:
            return dict.fromkeys(_KUBELETS, self._kubelet.serve)
        return dict.fromkeys(_KUBELETS, self._serve_host) if self._host is not None else {}

    async def _serve_host(self, request: Request) -> None:
        assert self._host is not None
        await self._host.serve(request.accept(), request.principal, request.trace_id)

    def _records_itself(self, target: Target) -> bool:
        """Returns whether a target writes its own records: the built-in kubelet records each command and log.

        What a real kubelet is asked cannot be seen, so that only its connections are recorded.
        """
        return self._host is not None and isinstance(target, ServiceTarget) and target.name in _KUBELETS

    async def _apply_listen(self, new: AgentConfig) -> None:
        """Makes the open listeners match the `[[listen]]` sections.

        Each opens as soon as it can: the way to the box must not depend on whether a port is free.
        """
        for one in self._listeners.keys() - set(new.listen):
            await self._shut(self._listeners.pop(one))
        for one in new.listen:
            if one in self._listeners:
                continue
            serving = LocalListen(self.links, one.listen, one.target.target, self._audit, self.traffic)
            self._listeners[one] = self._open(f"listen {one.listen}", one.listen, serving.handle)

    async def _apply_metrics(self, old: AgentConfig, new: AgentConfig) -> None:
        if self._metrics is not None and old.metrics != new.metrics:
            opened, self._metrics = self._metrics, None
            await self._shut(opened)
        if self._metrics is None and new.metrics.listen is not None:
            self._metrics = self._open("metrics", new.metrics.listen, self._page())

    async def _apply_autonomy(self, old: AgentConfig, new: AgentConfig) -> None:
        """Makes the API proxy match the configuration. Another section is another proxy."""
        if self._api_proxy is not None and old.autonomy != new.autonomy:
            if new.autonomy is None:
                await self._api_proxy.withdraw()
            opened, proxy, self._api, self._api_proxy = self._api, self._api_proxy, [], None
            await self._end_api(proxy, opened)
            for one in opened:
                await self._shut(one)
            await proxy.aclose()
        settings = new.autonomy
        if self._api_proxy is None:
            self._sockets.tell_unused(AUTONOMY, settings.addresses if settings is not None else [])
        if self._api_proxy is None and settings is not None:
            from edge_agent.autonomy.kept.feeds import KeptLimits
            from edge_agent.autonomy.operator.operator_api import OperatorSettings
            from edge_agent.autonomy.proxy import ApiProxy, ProxySettings  # brings HTTP

            assert self.config.state is not None
            wanted = ProxySettings(
                addresses=settings.addresses,
                server=settings.server,
                ca=settings.ca,
                client_cert=settings.client_cert,
                client_key=settings.client_key,
                shared_token=settings.shared_token,
                kubelet_cgroup=settings.kubelet_cgroup,
                grace_s=settings.certificate_grace_s,
                limits=KeptLimits(
                    scopes=settings.max_parts, scope_bytes=settings.max_part_bytes, total_bytes=settings.max_bytes
                ),
                operator=OperatorSettings(allow=frozenset(settings.operator.allow)),
                kubelet=settings.operator.kubelet,
            )
            proxy = self._api_proxy = ApiProxy(self.name, wanted, self.config.state, self._audit, self._api_server_said)
            self._api = [self._open_api(proxy, address, new) for address in settings.addresses]

    def _open_api(self, proxy: ApiProxy, address: str, config: AgentConfig) -> _Open:
        """Begins to open the API proxy at an address. Those for pods may lack their interface, and wait for it alone.

        A kubelet that is ordered behind this service starts without the cloud: it is ready at the first address.
        """
        listener = Listener(AUTONOMY, proxy.handle, config.limits.client_limits, self._sockets)
        assert config.autonomy is not None
        is_first = address == config.autonomy.addresses[0]

        async def opened() -> None:
            await proxy.open(listener, address)
            if is_first:
                notify("READY=1")

        return _Open(listener, self.parts.want(AUTONOMY if is_first else f"{AUTONOMY} {address}", opened))

    async def _end_api(self, proxy: ApiProxy, opened: list[_Open]) -> None:
        """Accepts nobody any more, and answers those who were accepted: the next ones wait at a socket of a unit."""
        for one in opened:
            one.listener.close()
        proxy.close()
        await settled(lambda: sum(one.listener.undecided for one in opened))

    def _linked(self) -> None:
        self._tasks.spawn("ready", self._say_ready())

    async def _say_ready(self) -> None:
        """Says that the first link is up; but no sooner than the API proxy listens, if it can, since a kubelet that is
        ordered behind this service looks there at once.
        """
        for one in self._api[:1]:
            await one.part.tried.wait()
        notify("READY=1")

    def _api_server_said(self, words: str) -> None:
        if words:
            self.facts.set(API_SERVER, API_SERVER_AWAY, words)
        else:
            self.facts.clear(API_SERVER)

    @property
    def autonomy(self) -> dict[str, Any] | None:
        """Returns how the API of the node stands, as the admin API shows it; None without `[autonomy]`."""
        return self._api_proxy.as_json() if self._api_proxy is not None else None

    def _open(self, name: str, address: str, handler: Handler) -> _Open:
        listener = Listener(name, handler, self.config.limits.client_limits)
        return _Open(listener, self.parts.want(name, partial(listener.listen_tcp, address)))

    async def _shut(self, opened: _Open) -> None:
        self.parts.forget(opened.part)
        await opened.listener.aclose()

    def _opened(self) -> list[_Open]:
        return [*self._listeners.values(), *([self._metrics] if self._metrics is not None else ()), *self._api]
