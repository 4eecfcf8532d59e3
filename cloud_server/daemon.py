"""The cloud daemon put together: identities, sessions, front ends; started in order, drained on SIGTERM."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import structlog

from cloud_server.config import ServerConfig
from cloud_server.frontends.connect import ConnectFrontend
from cloud_server.frontends.fleet.server import FleetServer
from cloud_server.frontends.forward import Forward
from cloud_server.identity.agents import AgentStore
from cloud_server.identity.ca import CaMissing, CertificateAuthority
from cloud_server.identity.enrollment import Enrollment
from cloud_server.identity.tokens import TokenStore
from cloud_server.identity.users import Users
from cloud_server.registry import Registry
from cloud_server.sessions import SessionAcceptor
from cloud_server.setup import state_of
from tunnel.aio import malloc
from tunnel.aio.carrier_server import CarrierServer
from tunnel.aio.command import VERSION
from tunnel.aio.credentials import CredentialsUnusable, ServerTls
from tunnel.aio.lifecycle import EXIT_FAILED, EXIT_OK, Stop, run_daemon
from tunnel.aio.listener import Handler, Listener, ListenFailed
from tunnel.aio.logs import configure_logs
from tunnel.aio.native_log import HandshakeFailed, NativeEvent, Suppressed, capture
from tunnel.aio.sd_notify import notify
from tunnel.aio.tasks import TaskOwner
from tunnel.aio.tls import server_context
from tunnel.core.budget import Budget
from tunnel.core.errors import Code, SessionRefused
from tunnel.core.limits import MIB, Limits, Timing

PROCESS_BUDGET_BYTES = 1024 * MIB
"""Receive windows of all sessions together."""
RECONNECT_AFTER_S = 1.0
"""What agents are told to wait when this server stops: a restart takes about as long."""
CARRIER_GRACE_S = 1.0

_log = structlog.get_logger("cloud.server")


class StartFailed(Exception):
    """The server cannot start; the text says why and what to do."""


def run(config: ServerConfig) -> int:
    """Run until SIGTERM; returns the exit code."""
    malloc.tune()
    return run_daemon(lambda stop: _main(config, stop))


async def _main(config: ServerConfig, stop: Stop) -> int:
    try:
        async with capture(_log_native), AsyncExitStack() as stack:
            configure_logs(config.log)
            server = CloudServer(config)
            stack.push_async_callback(server.aclose)
            await server.start(stop)
            _log.info("ready", version=VERSION, ports=server.ports)
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
            await stop.drain(server.drain())
        return EXIT_OK
    except (StartFailed, ListenFailed, CredentialsUnusable, OSError) as error:
        _log.error("cannot start", reason=str(error))
        return EXIT_FAILED


class CloudServer:
    """All parts of the daemon."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        state = state_of(config)
        tunnel = config.tunnel
        self._tls = ServerTls(
            certificate=tunnel.certificate or state / "server.crt",
            key=tunnel.key or state / "server.key",
            client_ca=tunnel.client_ca or state / "ca.crt",
        )
        self._agents = AgentStore(state, pins_unknown=tunnel.client_ca is not None)
        self._users = Users(state, tunnel.trust_domain)
        self._registry = Registry(self._agents)
        self._sessions = SessionAcceptor(
            self._registry,
            self._agents,
            version=VERSION,
            limits=Limits(),
            timing=Timing(
                suspect_after_s=tunnel.suspect_after_s,
                dead_after_s=tunnel.dead_after_s,
                resume_window_s=tunnel.resume_window_s,
            ),
            process_budget=Budget(total_bytes=PROCESS_BUDGET_BYTES),
        )
        self._fleet = FleetServer(self._registry, self._registry, self._users.authenticate)
        self._carriers: CarrierServer | None = None
        self._listeners: list[Listener] = []
        self._tasks = TaskOwner("cloud server")
        self.ports: dict[str, list[int]] = {}
        """Bound ports of each front end."""

    async def start(self, stop: Stop) -> None:
        """Open everything; `stop` is asked for should a part that keeps the server right end.

        Raises:
            StartFailed, ListenFailed, CredentialsUnusable, OSError: something cannot be opened.
        """
        await asyncio.to_thread(self._load)
        enrollment = await asyncio.to_thread(self._enrollment)
        self._carriers = CarrierServer(
            self._config.tunnel.listen,
            self._tls,
            self._sessions.on_carrier,
            enrollment,
            trust_domain=self._config.tunnel.trust_domain,
        )
        await self._carriers.start()
        self.ports["tunnel"] = self._carriers.ports
        await self._open_front_ends()
        stop.watch(self._tasks.spawn("follow agents", self._agents.follow(self._registry.removed)))
        stop.watch(self._tasks.spawn("follow users", self._users.follow()))
        stop.watch(self._tasks.spawn("fleet", self._fleet.run()))

    async def drain(self) -> None:
        """Take nothing new, tell the agents, and let connections go on for a while."""
        for listener in self._listeners:
            listener.close()
        text = "the server is stopping"
        self._sessions.drain(SessionRefused(text, Code.SHUTTING_DOWN, RECONNECT_AFTER_S))
        sessions = self._registry.sessions()
        for session in sessions:
            session.go_away(Code.SHUTTING_DOWN, text, RECONNECT_AFTER_S)
        try:
            async with asyncio.timeout(self._config.drain_s):
                for session in sessions:
                    await session.drained()
        except TimeoutError:
            left = sum(session.core.stream_count for session in sessions)
            _log.warning("connections still open at the end of the drain are reset", streams=left)

    async def aclose(self) -> None:
        """Close what is open; agents are told, so that they need not wait for what does not come back."""
        async with asyncio.TaskGroup() as finishing:
            for session in self._registry.sessions():
                finishing.create_task(session.finish(CARRIER_GRACE_S))
        for listener in self._listeners:
            await listener.aclose()
        for session in self._registry.sessions():
            await session.aclose()
        if self._carriers is not None:
            await self._carriers.stop(CARRIER_GRACE_S)
        await self._tasks.aclose()

    # Internal

    def _load(self) -> None:
        self._agents.reload()
        self._users.reload()

    def _enrollment(self) -> Enrollment | None:
        """Join and Renew, with an authority of our own; with the user's there is neither."""
        if self._config.tunnel.client_ca is not None:
            return None
        state = state_of(self._config)
        try:
            authority = CertificateAuthority.load(state, self._config.tunnel.trust_domain)
        except CaMissing as error:
            raise StartFailed(str(error)) from error
        return Enrollment(authority, TokenStore(state), self._agents, self._registry.rejoined)

    async def _open_front_ends(self) -> None:
        config, deadline_s = self._config, self._config.dial_timeout_s
        context = await asyncio.to_thread(server_context, self._tls)
        connect = ConnectFrontend(self._registry, self._users.authenticate, deadline_s=deadline_s)
        if config.connect.unix is not None:
            await self._listener("connect-unix", connect.handle_unix).listen_unix(config.connect.unix)
        if config.connect.listen is not None:
            await self._listener("connect", connect.handle_tls).listen_tcp(config.connect.listen, context)
        if config.fleet.listen is not None:
            await self._listener("fleet", self._fleet.handle).listen_tcp(config.fleet.listen, context)
        for one in config.forward:
            forward = Forward(self._registry, one.listen, one.agent, one.tcp_target, deadline_s=deadline_s)
            await self._listener(f"forward {one.listen}", forward.handle).listen_tcp(one.listen)
        self.ports |= {listener.name: listener.ports for listener in self._listeners if listener.ports}

    def _listener(self, name: str, handler: Handler) -> Listener:
        listener = Listener(name, handler)
        self._listeners.append(listener)
        return listener


def _log_native(event: NativeEvent) -> None:
    """What gRPC's own code says; above all, whose certificate was not accepted."""
    if isinstance(event, HandshakeFailed):
        level = _log.warning if event.certificate else _log.debug
        level("peer refused in the TLS handshake", address=event.peer, reason=event.reason)
    elif isinstance(event, Suppressed):
        _log.warning("more peers refused in the TLS handshake", count=event.count)
    else:
        _log.warning("grpc", text=event.text)
