"""A running server: its parts, and `apply`, which makes them match a configuration. Its start is the first `apply`."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import structlog

from cloud_server.agents.agents import Agents, Change
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.agents.feed import FollowerTooSlow
from cloud_server.agents.refusals import Refusals
from cloud_server.agents.sessions import AgentSessions
from cloud_server.certificates import Certificates
from cloud_server.config import NOTHING, ServerConfig, state_of
from cloud_server.counting import Counting
from cloud_server.followed_cluster import FollowedCluster
from cloud_server.front_ends import FrontEnds
from cloud_server.frontends.exposed import Exposed
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door
from cloud_server.opens.live import LiveOpens
from cloud_server.opens.local import Local
from cloud_server.opens.policy import EverybodyMayAll
from cloud_server.operate.agent_book import AgentBook
from cloud_server.operate.events import LOST, EventBook
from cloud_server.routing.router import Router
from cloud_server.trust.administration import Administration
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.enrollment import Enrollment
from cloud_server.trust.sightings import Sightings
from cloud_server.trust.signer import Signer, SignerFailed
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.store import StoreUnavailable
from cloud_server.trust.tokens import JoinTokens, UserTokens
from tunnel.aio.carriers.carrier_server import CarrierServer
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.operate.admin import Routes
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.process.command import VERSION
from tunnel.aio.process.lifecycle import Stop
from tunnel.aio.process.log_sink import Lost
from tunnel.aio.process.logs import set_level
from tunnel.aio.process.parts import Parts
from tunnel.aio.process.supervised import keep_told
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.standing import stuck
from tunnel.core.path.probes import PingBudget
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, OpenRefused, SessionRefused, TunnelError
from tunnel.core.wire.faults import CANNOT_LISTEN, DRAIN_CUT, SIGNER_FAILED, FaultError
from tunnel.core.wire.limits import MIB, Limits, Timing

PROCESS_BUDGET_BYTES = 1024 * MIB
"""Receive windows of all sessions together."""
RECONNECT_AFTER_S = 1.0
"""What agents are told to wait when this server stops: a restart takes about as long."""
CARRIER_GRACE_S = 1.0
FIRST_TRY_S = 2.0
"""How long a start, or another configuration, waits at most for the parts, so that what is ready has them."""
STOPPING = "the server is stopping"

_log = structlog.get_logger("cloud.server")


class StartFailed(FaultError):
    """The server cannot start; the text says why and what to do."""

    default_fault = SIGNER_FAILED


class CloudServer:
    """All parts. `start` first, then `apply` for each other configuration; `drain` and `aclose` at the end."""

    def __init__(
        self, config: ServerConfig, store: SqliteStore, audit: AuditLog, lost_lines: Callable[[], Lost]
    ) -> None:
        """Puts them together; nothing is opened.

        Args:
            config: what there is to be; its ONLY_AT_START holds to the end.
            store: of the state folder; closed by whoever opened it.
            audit: takes all records.
            lost_lines: what is missing in the log so far.
        """
        self.config = config
        self.since = datetime.now(UTC)
        self.server_id = secrets.token_hex(8)
        self.parts = Parts()
        self.live = LiveOpens()
        self.directory = MemoryDirectory()
        self.events = EventBook()
        self.admin = Routes()
        """What may be asked of the server itself; whoever can answer adds to it."""
        self.store = store
        self.audit = audit
        self.lost_lines = lost_lines
        self.logins = RefusedLogins(audit)
        self.joined = JoinedAgents(store, pins_unknown=config.tunnel.client_ca is not None)
        self.agents = Agents(self.joined, self.directory)
        self.certificates = Certificates(config, self.agents.each, self.events.expiry)
        self.cluster = FollowedCluster(self.parts)
        self._stop: Stop | None = None
        state, tunnel = state_of(config), config.tunnel
        self._tls = ServerTls(
            certificate=tunnel.certificate or state / "server.crt",
            key=tunnel.key or state / "server.key",
            client_ca=tunnel.client_ca or state / "ca.crt",
        )
        self._sightings = Sightings(store)
        authenticator = Authenticator(tunnel.trust_domain, UserTokens(store))
        local = Local(self.agents, self.directory)
        self._door = Door(self.live, Router(self.agents), EverybodyMayAll(), audit, local)
        self._exposed = Exposed(self._door, [], lambda name: authenticator.agent(name, ""))
        self.sessions = self._agent_sessions(config)
        self._signer = None if tunnel.client_ca is not None else Signer(state, tunnel.trust_domain)
        self.administration = Administration(store, self.joined, self._signer)
        self.book = AgentBook(self.agents, self.administration, self._sightings, lambda _name: ())
        self.counting = Counting(self, self._door)
        self.front_ends = FrontEnds(
            state, self._tls, self.agents, self._door, self.live, authenticator, self.logins, audit, self.parts,
            self.counting.page, self.admin, self._watch,
        )  # fmt: skip
        self._carriers: CarrierServer | None = None
        self._tasks = TaskOwner("cloud server")
        self._follow_memberships()

    @property
    def ports(self) -> dict[str, list[int]]:
        """Bound ports by the name of what listens there."""
        tunnel = self._carriers.ports if self._carriers is not None else []
        return {"tunnel": tunnel, **self.front_ends.ports}

    async def start(self, stop: Stop) -> None:
        """Opens everything; `stop` is asked for should a task that keeps the server right end.

        What agents need is a must: the authority, the certificate and one address to dial. The rest are parts, which
        come up when they can.

        Raises:
            StartFailed, CredentialsUnusable: something that is a must cannot be opened.
        """
        self._stop = stop
        config = self.config
        enrollment = await self._enrollment()
        self._carriers = CarrierServer(
            config.tunnel.listen,
            self._tls,
            self.sessions.on_carrier,
            enrollment,
            trust_domain=config.tunnel.trust_domain,
        )
        await self._listen_for_agents(self._carriers)
        await self.apply(NOTHING, config)
        for title, work in (
            ("follow state", self.store.follow()),
            ("see agents", self._see_agents()),
            ("sightings", self._sightings.run()),
            ("systemd", keep_told(self._line, lambda: stuck(self.directory.sessions()), os.environ)),
            ("follow certificates", self.certificates.follow(self._signer, self.front_ends.reload_certificate)),
        ):
            stop.watch(self._tasks.spawn(title, work))

    async def apply(self, old: ServerConfig, new: ServerConfig) -> None:
        """Makes the running server match another configuration. What that still allows goes on; what it does not ends
        with NOT_ALLOWED on both sides.

        Raises:
            CredentialsUnusable: the server's certificate cannot be used; only at the start.
        """
        self.config = new
        if new.log.level != old.log.level:
            set_level(new.log.level)
        if new.audit != old.audit:
            self.audit.use(new.audit.destination, new.audit.on_failure)
        self.certificates.config = new
        if new.route != old.route or old is NOTHING:
            self._door.routing = Router(self.agents, [route.policy for route in new.route], self.cluster.index)
        if new.expose != old.expose:
            is_gone = self._exposed.replace([one.rule for one in new.expose])
            refused = OpenRefused("the [[expose]] rules of the server do not allow it any more", Code.NOT_ALLOWED)
            self._tell_ended(self.live.end_where(is_gone, refused))
        await self.counting.apply(new)
        self.cluster.follow(new.kubernetes.kubeconfig, self._watch)
        self._tell_ended(await self.front_ends.apply(new))
        await self.parts.tried(FIRST_TRY_S)

    async def drain(self) -> None:
        """Takes nothing new, tells the agents, and lets connections go on for a while."""
        self.parts.stop()
        self.counting.draining = True
        self.front_ends.close()
        self.sessions.drain(SessionRefused(STOPPING, Code.SHUTTING_DOWN, RECONNECT_AFTER_S))
        sessions = self.directory.sessions()
        for session in sessions:
            session.go_away(Code.SHUTTING_DOWN, STOPPING, RECONNECT_AFTER_S)
        try:
            async with asyncio.timeout(self.config.drain_s):
                for session in sessions:
                    await session.drained()
        except TimeoutError:
            left = sum(session.core.stream_count for session in sessions)
            _log.warning("connections still open at the end of the drain are reset", code=DRAIN_CUT.code, streams=left)

    async def aclose(self) -> None:
        """Closes what is open; agents are told, so that they need not wait for what does not come back."""
        for agent in self.agents.agents():
            if agent.connected:
                self._sightings.seen(agent.name, agent.address, agent.version, STOPPING)
        async with asyncio.TaskGroup() as finishing:
            for session in self.directory.sessions():
                finishing.create_task(session.finish(CARRIER_GRACE_S))
        await self.parts.aclose()
        await self.front_ends.aclose()
        for session in self.directory.sessions():
            await session.aclose()
        if self._carriers is not None:
            await self._carriers.stop(CARRIER_GRACE_S)
        if self._signer is not None:
            await self._signer.aclose()
        await self._tasks.aclose()
        await self._sightings.write()
        await self.cluster.aclose()

    # Internal

    def _agent_sessions(self, config: ServerConfig) -> AgentSessions:
        tunnel = config.tunnel
        return AgentSessions(
            self.agents,
            self.directory,
            self.joined,
            version=VERSION,
            limits=Limits(),
            timing=Timing(
                suspect_after_s=tunnel.suspect_after_s,
                dead_after_s=tunnel.dead_after_s,
                resume_window_s=tunnel.resume_window_s,
            ),
            process_budget=Budget(total_bytes=PROCESS_BUDGET_BYTES),
            ping_budget=PingBudget(pings_per_s=tunnel.pings_per_s),
            server_id=self.server_id,
            acceptor=self._exposed.acceptor,
            turned_down=self._exposed.turned_down,
            refusals=Refusals(self._sightings.replaced, self.events.refused),
        )

    def _follow_memberships(self) -> None:
        self.joined.when_lost(self._removed)
        self.joined.when_lost(self.events.lost_name)
        self.joined.when_joined(self.events.joined)

    def _removed(self, name: str, error: TunnelError) -> None:
        """An agent's membership was taken away: what runs to it ends with that as the reason, and then its session."""
        lost = OpenRefused(str(error), Code.STANDING_LOST)
        self.live.end_where(lambda live: live.agent == name, lost)
        self.agents.removed(name, error)

    def _watch(self, task: asyncio.Task[None]) -> None:
        """A task that is to run until a configuration wants it no more: only then may it end."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and self._stop is not None:
                self._stop.watch(task)

        task.add_done_callback(ended)

    def _line(self) -> str:
        """Returns how the server is, for `systemctl status`."""
        attached = sum(session.attached for session in self.directory.sessions())
        fault = self.counting.config_fault
        told = [f"{attached} agent{'' if attached == 1 else 's'} connected", *self.parts.faults()]
        return "; ".join([*told, *([f"the configuration file cannot be used: {fault}"] if fault else [])])

    def _tell_ended(self, ended: int) -> None:
        if ended:
            _log.info("connections ended that are not allowed any more", connections=ended)

    async def _enrollment(self) -> Enrollment | None:
        """Join and Renew, with an authority of our own; with the user's there is neither."""
        if self._signer is None:
            return None
        try:
            await self._signer.check()
        except SignerFailed as error:
            raise StartFailed(error.text, error.fault) from error
        # Before anything shows it: what has run out is a reason to start, not one to fail.
        await self.certificates.renew(self._signer)
        try:
            await JoinTokens(self.store).tidy()
        except StoreUnavailable as error:
            _log.warning("old join tokens stay in the list", code=error.fault.code, reason=str(error))
        return Enrollment(self._signer, self.store, self.joined, self.agents.rejoined)

    async def _see_agents(self) -> None:
        """Notes who comes and goes, for lists and events, until cancelled."""
        while True:
            with suppress(FollowerTooSlow):
                async for change, agent in self.agents.subscribe():
                    if change is Change.REMOVED:
                        continue
                    first = self._sightings.get(agent.name) is None
                    self._sightings.seen(agent.name, agent.address, agent.version, agent.reason)
                    self.events.agent_changed(agent, first=first)
                continue
            self.events.tell(LOST, "agents came and went so fast that the events do not have all of them")
            for agent in self.agents.each():
                if agent.connected:
                    self._sightings.seen(agent.name, agent.address, agent.version, agent.reason)

    async def _listen_for_agents(self, carriers: CarrierServer) -> None:
        """One address is enough to begin with: another may belong to an interface that is not up yet."""
        failed: dict[str, OSError] = {}
        for address in self.config.tunnel.listen:
            try:
                await carriers.listen(address)
            except OSError as error:
                failed[address] = error
        if not carriers.ports:
            first = next(iter(failed.values()))
            raise StartFailed(str(first), CANNOT_LISTEN) from first
        for missing in failed:
            self.parts.want(f"tunnel {missing}", partial(carriers.listen, missing))
