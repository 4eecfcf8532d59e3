"""The cloud daemon put together: identities, sessions, front ends; started in order, drained on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import structlog

from cloud_server.agents.refusals import Refusals
from cloud_server.agents.registry import Registry, SubscriberTooSlow
from cloud_server.agents.sessions import SessionAcceptor
from cloud_server.certificates import Certificates
from cloud_server.config import ServerConfig, state_of
from cloud_server.front_ends import FrontEnds
from cloud_server.frontends.exposed import Exposed
from cloud_server.handover import Inheritance, Upgrades
from cloud_server.kubernetes.access import ClusterAccess
from cloud_server.kubernetes.follow import Follower
from cloud_server.routing.cluster import ClusterIndex
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.enrollment import Enrollment
from cloud_server.trust.sightings import Sightings
from cloud_server.trust.signer import Signer, SignerFailed
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.state import open_state
from cloud_server.trust.store import StoreUnavailable
from cloud_server.trust.tokens import JoinTokens, UserTokens
from tunnel.aio.carriers.carrier_server import CarrierServer
from tunnel.aio.carriers.native_log import HandshakeFailed, NativeEvent, Suppressed, capture
from tunnel.aio.identity.tls_material import CredentialsUnusable, ServerTls
from tunnel.aio.identity.validity import clock_says
from tunnel.aio.process import garbage, malloc
from tunnel.aio.process.command import VERSION
from tunnel.aio.process.lifecycle import EXIT_FAILED, EXIT_OK, Stop, run_daemon
from tunnel.aio.process.log_sink import EXIT_FLUSH_S, LogSink, Lost
from tunnel.aio.process.logs import start_log
from tunnel.aio.process.parts import PartFailed, Parts
from tunnel.aio.process.pid_file import AlreadyRunning
from tunnel.aio.process.sd_notify import notify
from tunnel.aio.process.supervised import keep_told
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.standing import stuck
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.core.path.probes import PingBudget
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import (
    CANNOT_LISTEN,
    DRAIN_CUT,
    GRPC_SAYS,
    PEER_CERTIFICATE_REFUSED,
    SIGNER_FAILED,
    FaultError,
    fault_of,
)
from tunnel.core.wire.limits import MIB, Limits, Timing

PROCESS_BUDGET_BYTES = 1024 * MIB
"""Receive windows of all sessions together."""
RECONNECT_AFTER_S = 1.0
"""What agents are told to wait when this server stops: a restart takes about as long."""
MOVES_PER_S = 500.0
"""Agents that are sent to the process that takes over come at this pace, on average: all in one instant would wait for
each other's TLS handshakes, and a server takes only so many peers that have said nothing yet.
"""
MOVE_S = 10.0
"""The longest that an agent is told to wait for that: a client may be waiting for it."""
SETTLE_S = 2.0
"""How long clients that were accepted before a stop have to say what they want; their agents stay for that."""
SETTLE_POLL_S = 0.02
KEPT_DRAIN_S = 5.0
"""The longest drain while the service manager keeps the listeners: whoever connects meanwhile waits for the next start,
and gives up after 10 s (a TLS handshake of Go's clients).
"""
CARRIER_GRACE_S = 1.0
FIRST_TRY_S = 2.0
"""How long a start waits at most for the parts, so that what is ready has them; agents may dial meanwhile."""

_log = structlog.get_logger("cloud.server")


class StartFailed(FaultError):
    """The server cannot start; the text says why and what to do."""

    default_fault = SIGNER_FAILED


def run(config: ServerConfig) -> int:
    """Run until SIGTERM, or until another process has taken over; returns the exit code."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # too early for an upgrade, and its default is to end the process
    inheritance = Inheritance.take(os.environ)
    malloc.tune()
    log = start_log(config.log)
    return run_daemon(lambda stop: _main(config, stop, log, inheritance), lambda: log.flush(EXIT_FLUSH_S))


async def _main(config: ServerConfig, stop: Stop, log: LogSink, inheritance: Inheritance) -> int:
    state = state_of(config)
    try:
        async with capture(_log_native, log.write), AsyncExitStack() as stack:
            lock = await asyncio.to_thread(inheritance.lock, state)
            store = await asyncio.to_thread(open_state, state)
            stack.push_async_callback(store.aclose)
            server = CloudServer(config, store, lambda: log.lost, inheritance.sockets)
            stack.push_async_callback(server.aclose)
            await server.start(stop, beside_another=inheritance.predecessor is not None)
            await inheritance.take_over()
            if lock is not None:
                await asyncio.to_thread(lock.write)
            upgrades = Upgrades(inheritance, lock, state, stop)
            stack.push_async_callback(upgrades.aclose)
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, upgrades.ask)
            garbage.settle()
            _log.info("ready", version=VERSION, ports=server.ports)
            notify("READY=1")
            server.begin_telling(stop)
            await stop.wait()
            await upgrades.call_off()
            if upgrades.successor is None:
                notify("STOPPING=1")
                await stop.drain(server.drain())
            else:
                await stop.drain(server.drain(upgrades.let_go))
        return EXIT_OK
    except (StartFailed, AlreadyRunning, StoreUnavailable, CredentialsUnusable, OSError) as error:
        _log.error("cannot start", code=fault_of(error).code, reason=str(error))
        return EXIT_FAILED


class CloudServer:
    """All parts of the daemon."""

    def __init__(
        self,
        config: ServerConfig,
        store: SqliteStore,
        lost_lines: Callable[[], Lost],
        sockets: ListeningSockets | None = None,
    ) -> None:
        """Put them together.

        Args:
            config: what there is to be.
            store: of the state folder; closed by whoever opened it.
            lost_lines: what is missing in the log so far.
            sockets: see `Inheritance`; None without one.
        """
        self._config = config
        self._store = store
        self._sockets = sockets or ListeningSockets()
        state = state_of(config)
        tunnel = config.tunnel
        self._tls = ServerTls(
            certificate=tunnel.certificate or state / "server.crt",
            key=tunnel.key or state / "server.key",
            client_ca=tunnel.client_ca or state / "ca.crt",
        )
        self._agents = JoinedAgents(store, pins_unknown=tunnel.client_ca is not None)
        self._authenticator = Authenticator(tunnel.trust_domain, UserTokens(store))
        self._sightings = Sightings(store)
        self._registry = Registry(self._agents)
        self._agents.when_lost(self._registry.removed)
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
            ping_budget=PingBudget(pings_per_s=tunnel.pings_per_s),
            server_id=secrets.token_hex(8),
            acceptor=Exposed(config.expose).acceptor,
            refusals=Refusals(self._sightings.replaced),
        )
        self._parts = Parts()
        self._cluster = ClusterIndex()
        self._cluster_access: ClusterAccess | None = None
        self._certificates = Certificates(config, self._registry.agents)
        self._front_ends = FrontEnds(
            config,
            self._tls,
            self._registry,
            self._authenticator,
            self._cluster,
            self._parts,
            lost_lines,
            self._certificates.ends,
            self._sockets,
        )
        self._carriers: CarrierServer | None = None
        self._signer: Signer | None = None
        self._tasks = TaskOwner("cloud server")
        self._telling: asyncio.Task[None] | None = None

    @property
    def ports(self) -> dict[str, list[int]]:
        """Bound ports by the name of what listens there."""
        tunnel = self._carriers.ports if self._carriers is not None else []
        return {"tunnel": tunnel, **self._front_ends.ports}

    async def start(self, stop: Stop, *, beside_another: bool = False) -> None:
        """Open everything; `stop` is asked for should a task that keeps the server right end.

        What agents need is a must: the authority, the certificate and one address to dial. The rest are parts, which
        come up when they can.

        `beside_another`: another process serves until this one is ready. Agents are let in last then: one that dials
        anew comes to either process, and its sessions are in the other.

        Raises:
            StartFailed, CredentialsUnusable, OSError: something that is a must cannot be opened.
        """
        enrollment = await self._enrollment()
        self._carriers = CarrierServer(
            self._config.tunnel.listen,
            self._tls,
            self._sessions.on_carrier,
            enrollment,
            trust_domain=self._config.tunnel.trust_domain,
        )
        if not beside_another:
            await self._listen_for_agents(self._carriers)
        await self._front_ends.open()
        if (kubeconfig := self._config.kubernetes.kubeconfig) is not None:
            self._parts.want("kubernetes", lambda: self._follow_cluster(kubeconfig, stop))
        await self._parts.tried(FIRST_TRY_S)
        stop.watch(self._tasks.spawn("follow state", self._store.follow()))
        stop.watch(self._tasks.spawn("see agents", self._see_agents()))
        stop.watch(self._tasks.spawn("sightings", self._sightings.run()))
        stop.watch(self._tasks.spawn("front ends", self._front_ends.run()))
        following = self._certificates.follow(self._signer, self._front_ends.reload_certificate)
        stop.watch(self._tasks.spawn("follow certificates", following))
        if beside_another:
            await self._listen_for_agents(self._carriers, shared=True)

    def begin_telling(self, stop: Stop) -> None:
        """Tell systemd how the server is, from now on; it listens to the main process only."""
        supervised = keep_told(self._line, lambda: stuck(self._registry.sessions()), os.environ)
        self._telling = self._tasks.spawn("systemd", supervised)
        stop.watch(self._telling)

    async def drain(self, let_go: Callable[[], Awaitable[None]] | None = None) -> None:
        """Take nothing new, tell the agents, and let connections go on for a while.

        `let_go`: called when no client is accepted any more; another process takes over then. None: there is none.
        """
        drain_s: float = self._config.drain_s
        self._parts.stop()
        self._front_ends.close(everything=let_go is not None)
        if let_go is not None:
            if self._telling is not None:
                self._telling.cancel()
            await let_go()
        elif self._sockets.outlive:
            drain_s = min(drain_s, KEPT_DRAIN_S)
        await self._settled()
        if let_go is not None and self._carriers is not None:
            self._carriers.stop_listening(drain_s + CARRIER_GRACE_S)
        sessions = self._registry.sessions()
        self._send_away(sessions, moves=let_go is not None)
        try:
            async with asyncio.timeout(drain_s):
                for session in sessions:
                    await session.drained()
        except TimeoutError:
            left = sum(session.core.stream_count for session in sessions)
            _log.warning("connections still open at the end of the drain are reset", code=DRAIN_CUT.code, streams=left)

    async def aclose(self) -> None:
        """Close what is open; agents are told, so that they need not wait for what does not come back."""
        async with asyncio.TaskGroup() as finishing:
            for session in self._registry.sessions():
                finishing.create_task(session.finish(CARRIER_GRACE_S))
        await self._parts.aclose()
        await self._front_ends.aclose()
        for session in self._registry.sessions():
            await session.aclose()
        if self._carriers is not None:
            await self._carriers.stop(CARRIER_GRACE_S)
        if self._signer is not None:
            await self._signer.aclose()
        await self._tasks.aclose()
        await self._sightings.write()
        if self._cluster_access is not None:
            await self._cluster_access.aclose()

    # Internal

    def _line(self) -> str:
        """Returns how the server is, for `systemctl status`."""
        attached = sum(session.attached for session in self._registry.sessions())
        return "; ".join([f"{attached} agent{'' if attached == 1 else 's'} connected", *self._parts.faults()])

    async def _settled(self) -> None:
        """Wait until whoever was accepted has a stream or an answer, but no longer than SETTLE_S."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + SETTLE_S
        await asyncio.sleep(SETTLE_POLL_S)  # what the event loop has accepted is counted from its next turns on
        while self._front_ends.undecided and loop.time() < give_up_s:  # noqa: ASYNC110 - many things make it so
            await asyncio.sleep(SETTLE_POLL_S)

    def _send_away(self, sessions: Sequence[TunnelSession], *, moves: bool) -> None:
        """Tell the agents to come back: to the process that has taken over, or when there is one."""
        text = "another process takes over" if moves else "the server is stopping"
        self._sessions.drain(SessionRefused(text, Code.SHUTTING_DOWN, RECONNECT_AFTER_S))
        spread_s = min(len(sessions) / MOVES_PER_S, MOVE_S)
        for session in sessions:
            wait_s = spread_s * random.random() if moves else RECONNECT_AFTER_S  # noqa: S311 - nobody guesses it
            session.go_away(Code.SHUTTING_DOWN, text, wait_s)

    async def _enrollment(self) -> Enrollment | None:
        """Join and Renew, with an authority of our own; with the user's there is neither."""
        if self._config.tunnel.client_ca is not None:
            return None
        state = state_of(self._config)
        self._signer = Signer(state, self._config.tunnel.trust_domain)
        try:
            await self._signer.check()
        except SignerFailed as error:
            raise StartFailed(error.text, error.fault) from error
        # Before anything shows it: what has run out is a reason to start, not one to fail.
        await self._certificates.renew(self._signer)
        try:
            await JoinTokens(self._store).tidy()
        except StoreUnavailable as error:
            _log.warning("old join tokens stay in the list", code=error.fault.code, reason=str(error))
        return Enrollment(self._signer, self._store, self._agents, self._registry.rejoined)

    async def _see_agents(self) -> None:
        """Note who comes and goes, for lists, until cancelled."""
        while True:
            with suppress(SubscriberTooSlow):
                async for _, agent in self._registry.subscribe():
                    if agent.address:
                        self._sightings.seen(agent.name, agent.address, agent.version)

    async def _listen_for_agents(self, carriers: CarrierServer, *, shared: bool = False) -> None:
        """One address is enough to begin with: another may belong to an interface that is not up yet.

        `shared`: another process that lets go soon listens there.
        """
        failed: dict[str, OSError] = {}
        for address in self._config.tunnel.listen:
            try:
                await carriers.listen(address, shared=shared)
            except OSError as error:
                failed[address] = error
        if not carriers.ports:
            first = next(iter(failed.values()))
            raise StartFailed(str(first), CANNOT_LISTEN) from first
        for missing in failed:
            self._parts.want(f"tunnel {missing}", partial(carriers.listen, missing, shared=shared))

    async def _follow_cluster(self, kubeconfig: Path, stop: Stop) -> None:
        """Begin to follow the cluster; that it is away is the follower's business, not that of this part."""
        await asyncio.to_thread(import_module, "cloud_server.kubernetes.lightkube_access")  # takes a second
        from cloud_server.kubernetes.lightkube_access import KubeconfigUnusable, LightkubeAccess  # costs 21 MB

        try:
            access = self._cluster_access = LightkubeAccess.from_kubeconfig(kubeconfig)
        except KubeconfigUnusable as fault:
            raise PartFailed(f"kubernetes.kubeconfig: {fault}", fault.fault) from fault
        stop.watch(self._tasks.spawn("follow cluster", Follower(access, self._cluster).run()))


def _log_native(event: NativeEvent) -> None:
    """What gRPC's own code says; above all, whose certificate was not accepted."""
    if isinstance(event, HandshakeFailed):
        level = _log.warning if event.certificate else _log.debug
        # Which of the two clocks is wrong is for a person to see.
        clock = {"clock": clock_says()} if "expired" in event.reason or "not yet valid" in event.reason else {}
        level(
            "peer refused in the TLS handshake",
            code=PEER_CERTIFICATE_REFUSED.code,
            address=event.peer,
            reason=event.reason,
            **clock,
        )
    elif isinstance(event, Suppressed):
        _log.warning("more peers refused in the TLS handshake", code=PEER_CERTIFICATE_REFUSED.code, count=event.count)
    else:
        _log.warning("grpc", code=GRPC_SAYS.code, text=event.text)
