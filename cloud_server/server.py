"""Runs the server: puts its parts together, and makes them match a configuration by `apply`. Its start is the first
`apply`.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import structlog

from cloud_server.agents.agents import Agents, Change
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.agents.feed import FollowerTooSlow
from cloud_server.agents.pace import AgentPace
from cloud_server.agents.refusals import Refusals
from cloud_server.agents.sessions import AgentSessions
from cloud_server.certificates import Certificates
from cloud_server.config import (
    NOTHING,
    ServerConfig,
    authority_folder,
    policy_file_of,
    signer_of,
    state_of,
    tls_of,
)
from cloud_server.counting import Counting
from cloud_server.followed_cluster import FollowedCluster
from cloud_server.followed_issuer import FollowedIssuer
from cloud_server.followed_policy import FollowedPolicy
from cloud_server.front_ends import FrontEnds
from cloud_server.frontends.exposed import Exposed
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.limits_config import LimitsConfig
from cloud_server.opens.door import Door
from cloud_server.opens.live import LiveOpens
from cloud_server.opens.local import Local
from cloud_server.opens.pace import OpenPace
from cloud_server.opens.policy import DoorPolicy
from cloud_server.operate.agent_book import AgentBook
from cloud_server.operate.events import LOST, EventBook, begin_now
from cloud_server.rights.policy_file import NO_POLICY, PolicyFile
from cloud_server.routing.router import Router
from cloud_server.trust.administration import Administration
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import ISSUED_BY, Authenticator
from cloud_server.trust.enrollment import Enrollment
from cloud_server.trust.node_tokens import NodeTokens
from cloud_server.trust.sightings import Sightings
from cloud_server.trust.signing_link import SignerFailed
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.standing import Standing
from cloud_server.trust.store import StoreUnavailable
from cloud_server.trust.tokens import JoinTokens
from cloud_server.trust.users import Users
from tunnel.aio.carriers.carrier_server import CarrierServer
from tunnel.aio.identity.validity import Watched
from tunnel.aio.operate.admin import Routes
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.operate.desired_state import Reloaded
from tunnel.aio.process.lifecycle import Stop
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.process.logs import set_level
from tunnel.aio.process.parts import Parts
from tunnel.aio.process.supervised import keep_told
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.process.version import VERSION
from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.standing import stuck
from tunnel.aio.sockets.listener import settled
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.core.path.probes import PingBudget
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, OpenRefused, SessionRefused, TunnelError
from tunnel.core.wire.faults import CANNOT_LISTEN, CREDENTIAL_LOST, DRAIN_CUT, SIGNER_FAILED, FaultError
from tunnel.core.wire.limits import Timing

"""Bytes of the receive windows of all sessions together."""
RECONNECT_AFTER_S = 1.0
"""Seconds that agents are told to wait when this server stops: a restart takes about as long."""
MOVES_PER_S = 500.0
"""How many agents a second, on average, come to the process that takes over: all in one instant would wait for each
other's TLS handshakes, and a server takes only so many peers that have said nothing yet.
"""
MOVE_S = 10.0
"""The most seconds that an agent is told to wait for that: a client may be waiting for it."""
KEPT_DRAIN_S = 5.0
"""The longest drain in seconds while the service manager keeps the listeners: whoever connects meanwhile waits for the
next start, and gives up after 10 s (a TLS handshake of Go's clients).
"""
CARRIER_GRACE_S = 1.0
FIRST_TRY_S = 2.0
"""Seconds that a start, or another configuration, waits at most for the parts, so that what is ready has them."""
STOPPING = "the server is stopping"

_log = structlog.get_logger("cloud.server")


class StartFailed(FaultError):
    """The server cannot start; the text says why and what to do."""

    default_fault = SIGNER_FAILED


class CloudServer:
    """A server with all its parts. Call `start` first, then `apply` for each other configuration, and `drain` and
    `aclose` at the end.
    """

    def __init__(
        self,
        config: ServerConfig,
        store: SqliteStore,
        audit: AuditLog,
        lost_lines: Callable[[], int],
        sockets: ListeningSockets | None = None,
    ) -> None:
        """Puts the parts together; opens nothing.

        Args:
            config: what the server is to be; its settings of ONLY_AT_START hold to the end.
            store: the store of the state folder; closed by whoever opened it.
            audit: takes all records.
            lost_lines: returns how many lines are missing in the log so far.
            sockets: see `Inheritance`; None without one.
        """
        self.config = config
        self._sockets = sockets or ListeningSockets()
        self.since = datetime.now(UTC)
        self.server_id = secrets.token_hex(8)
        self.parts = Parts()
        self.live = LiveOpens()
        self.directory = MemoryDirectory()
        self.events = EventBook(begin_now())
        self.admin = Routes()
        """The routes for what may be asked of the server itself; whoever can answer adds to them."""
        self.store = store
        self.audit = audit
        self.lost_lines = lost_lines
        self.logins = RefusedLogins(audit)
        self.joined = JoinedAgents(store, pins_unknown=config.tunnel.client_ca is not None)
        self.agents = Agents(self.joined, self.directory)
        self.cluster = FollowedCluster(self.parts)
        self._nodes = NodeTokens(self.cluster.review)
        self._stop: Stop | None = None
        state, tunnel = state_of(config), config.tunnel
        self._tls = tls_of(config)
        self._sightings = Sightings(store)
        self._users = Users(store, recorded=tunnel.client_ca is None)
        self.certificates = Certificates(config, self.agents.each, self.events.expiry, self._users.lasting)
        authenticator = Authenticator(tunnel.trust_domain, self._users)
        self.standing = Standing(authenticator.again)
        self.issuer = FollowedIssuer(self.parts, authenticator)
        local = Local(self.agents, self.directory)
        self.policy = DoorPolicy(NO_POLICY.rights, self.joined.labels)
        self.followed_policy = FollowedPolicy(policy_file_of(config), self._swap_policy, self._policy_reloaded)
        self._user_pace = OpenPace(config.limits.user_opens)
        self._door = Door(
            self.live, Router(self.agents), self.policy, audit, local, standing=self.standing, pace=self._user_pace
        )
        self._exposed = Exposed(self._door, [], lambda name: authenticator.agent(name, ""))
        self._agent_pace = AgentPace(config.limits.session, config.limits.links)
        self.sessions = self._agent_sessions(config)
        self._signer = signer_of(config)
        self.administration = Administration(store, self.joined, self._signer, self._users)
        self.book = AgentBook(self.agents, self.administration, self._sightings, self.agents.facts)
        self.counting = Counting(self, self._door)
        self.front_ends = FrontEnds(
            state, authority_folder(config), self._tls, self.agents, self._door, self.policy, self.live,
            authenticator, self.logins, audit,
            self.parts, self._sockets, self.counting.page, self.admin, self._watch,
        )  # fmt: skip
        self.carriers: CarrierServer | None = None
        self._enrollment: Enrollment | None = None
        self._tasks = TaskOwner("cloud server")
        self._telling: asyncio.Task[None] | None = None
        self._follow_memberships()

    @property
    def ports(self) -> dict[str, list[int]]:
        """Returns the bound ports by the name of what listens there."""
        tunnel = self.carriers.ports if self.carriers is not None else []
        return {"tunnel": tunnel, **self.front_ends.ports}

    async def start(self, stop: Stop, *, beside_another: bool = False) -> None:
        """Opens everything; `stop` is asked for should a task that keeps the server right end.

        What agents need is a must: the authority, the certificate and one address to dial. The rest are parts, which
        come up when they can.

        `beside_another`: another process serves until this one is ready. Agents are let in last then: one that dials
        anew comes to either process, and its sessions are in the other.

        Raises:
            StartFailed, CredentialsUnusable, ConfigError: something that is a must cannot be opened; a policy that is
                there and cannot be used is such a thing, since nobody knows what it forbids.
        """
        self._stop = stop
        config = self.config
        await self.followed_policy.load()
        enrollment = self._enrollment = await self._new_enrollment()
        self.carriers = CarrierServer(
            config.tunnel.listen,
            self._tls,
            self.sessions.on_carrier,
            enrollment,
            trust_domain=config.tunnel.trust_domain,
            limits=config.limits.carriers,
            places=self._sightings.places,
        )
        if not beside_another:
            await self._listen_for_agents(self.carriers)
        await self.apply(NOTHING, config)
        for title, work in (
            ("follow state", self.store.follow()),
            ("tidy state", self.store.tidy()),
            ("policy", self.followed_policy.run()),
            ("see agents", self._see_agents()),
            ("sightings", self._sightings.run()),
            ("users", self._users.keep()),
            ("follow certificates", self.certificates.follow(self._signer, self.front_ends.reload_certificate)),
        ):
            stop.watch(self._tasks.spawn(title, work))
        if beside_another:
            await self._listen_for_agents(self.carriers, shared=True)

    def use_of_limits(self) -> list[LimitUse]:
        """Returns how much of each limit of `[limits]` is used now."""
        parts = (self.carriers, self._enrollment, self.sessions, self._user_pace, self.front_ends)
        return [use for part in parts if part is not None for use in part.use_of_limits()]

    def users_near_end(self) -> list[Watched]:
        """Returns certificates of users whose end is near: from the records, or as they were presented."""
        return [*self.certificates.users_near_end, *self.front_ends.users_near_end()]

    def begin_telling(self, stop: Stop) -> None:
        """Tells systemd how the server is, from now on; systemd listens to the main process only."""
        supervised = keep_told(self._line, lambda: stuck(self.directory.sessions()), os.environ)
        self._telling = self._tasks.spawn("systemd", supervised)
        stop.watch(self._telling)

    async def apply(self, old: ServerConfig, new: ServerConfig) -> None:
        """Makes the running server match another configuration. What the new one still allows goes on; what it does not
        allow ends with NOT_ALLOWED on both sides.

        Raises:
            CredentialsUnusable: the server's certificate cannot be used; only at the start.
        """
        self.config = new
        if new.log.level != old.log.level:
            set_level(new.log.level)
        if new.audit != old.audit:
            self.audit.use(new.audit.destination, new.audit.on_failure)
        self.certificates.config = new
        if new.limits != old.limits:
            self._hold_to(new.limits)
        if new.policy != old.policy and old is not NOTHING:
            await self.followed_policy.use(policy_file_of(new))
        if new.route != old.route or old is NOTHING:
            self._door.routing = Router(self.agents, [route.policy for route in new.route], self.cluster.index)
        if new.expose != old.expose:
            is_gone = self._exposed.replace([one.rule for one in new.expose])
            refused = OpenRefused("the [[expose]] rules of the server do not allow it any more", Code.NOT_ALLOWED)
            self._tell_ended(self.live.end_where(is_gone, refused))
        await self.counting.apply(new)
        self.cluster.follow(new.kubernetes.kubeconfig, self._watch)
        self._nodes.use(new.kubernetes.join, new.kubernetes.join_audience)
        connect = new.connect.listen
        if await self.issuer.follow(new.oidc.settings, connect.port if connect is not None else None, self._watch):
            changed = OpenRefused("[oidc] of the server has changed", Code.STANDING_LOST, CREDENTIAL_LOST)
            self.standing.lose(lambda shower: shower.proof.startswith(ISSUED_BY), changed)
        self._tell_ended(await self.front_ends.apply(new))
        await self.parts.tried(FIRST_TRY_S)

    async def drain(self, let_go: Callable[[], Awaitable[None]] | None = None) -> None:
        """Takes nothing new, tells the agents to go, and lets connections go on for up to `drain_s` seconds, or
        KEPT_DRAIN_S if that is less and the service manager keeps the listeners.

        `let_go` is called when no client is accepted any more; another process takes over then. None means that there
        is no such process.
        """
        drain_s: float = self.config.drain_s
        self.parts.stop()
        self.counting.draining = True
        self.front_ends.close(everything=let_go is not None)
        if let_go is not None:
            if self._telling is not None:
                self._telling.cancel()
            await let_go()
        elif self._sockets.outlive:
            drain_s = min(drain_s, KEPT_DRAIN_S)
        await settled(lambda: self.front_ends.undecided)
        if let_go is not None and self.carriers is not None:
            self.carriers.stop_listening(drain_s + CARRIER_GRACE_S)
        sessions = self.directory.sessions()
        self._send_away(sessions, moves=let_go is not None)
        try:
            async with asyncio.timeout(drain_s):
                for session in sessions:
                    await session.drained()
        except TimeoutError:
            left = sum(session.core.stream_count for session in sessions)
            _log.warning("connections still open at the end of the drain are reset", code=DRAIN_CUT.code, streams=left)

    async def aclose(self) -> None:
        """Closes what is open. Agents are told, so that they need not wait for what does not come back."""
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
        if self.carriers is not None:
            await self.carriers.stop(CARRIER_GRACE_S)
        if self._signer is not None:
            await self._signer.aclose()
        await self._tasks.aclose()
        await self._sightings.write()
        await self._users.write()
        await self.cluster.aclose()
        await self.issuer.aclose()

    # Internal

    def _send_away(self, sessions: Sequence[TunnelSession], *, moves: bool) -> None:
        """Tells the agents to come back: to the process that has taken over, or to the next one when it is there."""
        text = "another process takes over" if moves else STOPPING
        self.sessions.drain(SessionRefused(text, Code.SHUTTING_DOWN, RECONNECT_AFTER_S))
        spread_s = min(len(sessions) / MOVES_PER_S, MOVE_S)
        for session in sessions:
            wait_s = spread_s * random.random() if moves else RECONNECT_AFTER_S  # noqa: S311 - nobody guesses it
            session.go_away(Code.SHUTTING_DOWN, text, wait_s)

    def _agent_sessions(self, config: ServerConfig) -> AgentSessions:
        tunnel = config.tunnel
        return AgentSessions(
            self.agents,
            self.directory,
            self.joined,
            version=VERSION,
            limits=config.limits.session,
            timing=Timing(
                suspect_after_s=tunnel.suspect_after_s,
                dead_after_s=tunnel.dead_after_s,
                resume_window_s=tunnel.resume_window_s,
            ),
            process_budget=Budget(total_bytes=config.limits.stream_memory_bytes),
            ping_budget=PingBudget(pings_per_s=tunnel.pings_per_s),
            server_id=self.server_id,
            acceptor=self._exposed.acceptor,
            turned_down=self._exposed.turned_down,
            refusals=Refusals(self._sightings.replaced, self.events.refused),
            pace=self._agent_pace,
        )

    def _hold_to(self, limits: LimitsConfig) -> None:
        """Holds everybody to these limits from now on. What they used counts on."""
        self._user_pace.use(limits.user_opens)
        self._agent_pace.use(limits.links, limits.agent_opens)
        self.sessions.memory.total_bytes = limits.stream_memory_bytes
        if self.carriers is not None:
            self.carriers.use(limits.carriers)
        if self._enrollment is not None:
            self._enrollment.use(limits.renewals, limits.joins)

    def _follow_memberships(self) -> None:
        self.joined.when_lost(self._removed)
        self.joined.when_lost(self.events.lost_name)
        self.joined.when_joined(self.events.joined)
        self.joined.when_changed(self.events.agent_record)
        self.joined.when_labelled(self._relabelled)
        self._users.when_changed(self.standing.changed)

    def _swap_policy(self, policy: PolicyFile) -> None:
        """Goes by another policy; what runs and is not allowed by it any more ends."""
        self.policy.rights = policy.rights
        self.standing.rules_changed()
        self.front_ends.rights_changed()

    def _relabelled(self, name: str) -> None:
        """Rules may be about the labels of a box."""
        self.standing.rules_changed()
        self.front_ends.relabelled(name)

    def _policy_reloaded(self, one: Reloaded) -> None:
        self.audit.record("policy", **one.as_json())
        self.events.reloaded(one, "policy")

    def _removed(self, name: str, error: TunnelError) -> None:
        """Ends what runs to an agent, and then its session, since its membership was taken away: that is the reason
        that is told.
        """
        lost = OpenRefused(str(error), Code.STANDING_LOST, error.fault)
        self.live.end_where(lambda live: live.agent == name, lost)
        self.agents.removed(name, error)

    def _watch(self, task: asyncio.Task[None]) -> None:
        """Watches a task that must run until a configuration wants it no more: only then may it end."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and self._stop is not None:
                self._stop.watch(task)

        task.add_done_callback(ended)

    def _line(self) -> str:
        """Returns how the server is as one line, for `systemctl status`."""
        attached = sum(session.attached for session in self.directory.sessions())
        fault = self.counting.config_fault
        told = [f"{attached} agent{'' if attached == 1 else 's'} connected", *self.parts.faults()]
        return "; ".join([*told, *([f"the configuration file cannot be used: {fault}"] if fault else [])])

    def _tell_ended(self, ended: int) -> None:
        if ended:
            _log.info("connections ended that are not allowed any more", connections=ended)

    async def _new_enrollment(self) -> Enrollment | None:
        """Returns the service of Join and Renew, with an authority of our own; None with the user's, when there is
        neither.

        Raises:
            StartFailed: the authority cannot be used.
        """
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
        limits = self.config.limits
        return Enrollment(
            self._signer, self.store, self.joined, self.agents.rejoined, self.audit, self._nodes,
            limits.renewals, limits.joins,
        )  # fmt: skip

    async def _see_agents(self) -> None:
        """Notes which agents come and go, for lists and events, until cancelled."""
        while True:
            with suppress(FollowerTooSlow):
                async for change, agent in self.agents.subscribe():
                    if change not in (Change.CONNECTED, Change.AWAY):
                        continue
                    first = self._sightings.get(agent.name) is None
                    came = agent.since if agent.connected else None
                    self._sightings.seen(agent.name, agent.address, agent.version, agent.reason, came)
                    self.events.agent_changed(agent, first=first)
                continue
            self.events.tell(LOST, "agents came and went so fast that the events do not have all of them")
            for agent in self.agents.each():
                if agent.connected:
                    self._sightings.seen(agent.name, agent.address, agent.version, agent.reason, agent.since)

    async def _listen_for_agents(self, carriers: CarrierServer, *, shared: bool = False) -> None:
        """Listens where agents dial. One address is enough to begin with: another may belong to an interface that is
        not up yet.

        `shared` says that another process that lets go soon listens there.

        Raises:
            StartFailed: none of the addresses can be had.
        """
        failed: dict[str, OSError] = {}
        for address in self.config.tunnel.listen:
            try:
                await carriers.listen(address, shared=shared)
            except OSError as error:
                failed[address] = error
        if not carriers.ports:
            first = next(iter(failed.values()))
            raise StartFailed(str(first), CANNOT_LISTEN) from first
        for missing in failed:
            self.parts.want(f"tunnel {missing}", partial(carriers.listen, missing, shared=shared))
