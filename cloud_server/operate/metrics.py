"""Shows what the server counts, in Prometheus' words.

Names that begin with `konnectivity_` mean here what they mean in konnectivity's server, so that its dashboards and
alerts go on working; what has no equal meaning is not offered under its name.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from cloud_server.agents.agents import Agents, AgentView
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.live import LiveOpens
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.sockets.handshake_fault import Cause
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code

KONNECTIVITY = "konnectivity_network_proxy_server_"
DIAL_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STREAM_BUCKETS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
_REASONS = {
    Code.UNKNOWN_AGENT: "no_agent",
    Code.AGENT_AWAY: "no_agent",
    Code.AMBIGUOUS: "no_agent",
    Code.DEADLINE: "backend_dial_timeout",
    Code.SESSION_LOST: "backend_close",
    Code.SHUTTING_DOWN: "backend_close",
    Code.CANCELLED: "frontend_close",
}
"""The words of konnectivity for why a dial failed; all else is `error_response`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources that are asked at each scrape."""

    agents: Agents
    live: LiveOpens
    logins: RefusedLogins
    audit: AuditLog
    connections: Callable[[], Mapping[str, int]]
    """Returns how many clients each listener serves."""
    strangers: Callable[[], Mapping[str, int]]
    """Returns how many of them have not shown who they are, of each listener that asks."""
    lost_lines: Callable[[], int]
    """Returns how many lines are missing in the log so far."""
    parts: Callable[[], Mapping[str, bool]]
    """Returns whether each part of the server is up, by its name."""
    expiries: Callable[[], Mapping[str, datetime]]
    """Returns when the server's certificates end."""
    unreadable: Callable[[], int]
    """Returns how many records of agents and tokens cannot be read."""
    links: Links
    handshakes_failed: Callable[[], Mapping[str, Mapping[Cause, int]]]
    """TLS handshakes that failed, by listener and cause; agents' are those of `tunnel`."""
    config: Callable[[], Config | None]
    """Returns how the configuration stands; None while nobody follows a file."""
    policy: Callable[[], Config]
    """Returns how the policy stands."""
    cluster_ages_s: Callable[[], Mapping[str, float]]
    """Returns how many seconds ago the cluster's API was heard of each kind of object."""
    limits: Callable[[], Sequence[LimitUse]]
    """Returns how much of each limit is used."""
    calls_refused: Callable[[], Mapping[str, int]]
    """Returns how many calls at the tunnel's port were refused, by the code of the cause."""
    connections_cut: Callable[[], Mapping[str, int]]
    """Returns how many connections there were cut since they made no call, by reason."""


class Links(Protocol):
    """The counts of agents' links so far; see `AgentSessions`."""

    @property
    def links(self) -> Mapping[str, int]:
        """Returns how many links there were, by whether they began a session or resumed one."""
        ...

    @property
    def lost(self) -> Mapping[str, int]:
        """Returns how many links ended, by the code of the cause."""
        ...

    @property
    def refused(self) -> Mapping[str, int]:
        """Returns how many agents were turned away, by the code of the cause."""
        ...

    @property
    def memory(self) -> Budget:
        """Returns what streams take and may take."""
        ...


class Config(Protocol):
    """How the configuration, or the policy, stands; see `DesiredState`."""

    generation: int
    fault: str
    needs_restart: list[str]
    loaded: datetime


class Metrics:
    """All figures of one server. The door tells it what happens; the rest is read when somebody asks."""

    def __init__(self, version: str, sources: Sources) -> None:
        """Starts all counters at 0. `version` is that of this build."""
        self._prometheus = prometheus = CollectorRegistry()
        self._dials = Counter("longline_dials", "Dials by outcome.", ["frontend", "code"], registry=prometheus)
        self._dial_s = _histogram("longline_dial_duration_seconds", "Time to an answer.", DIAL_BUCKETS_S, prometheus)
        self._ended = Counter(
            "longline_streams_ended", "Streams by why they ended.", ["frontend", "reason"], registry=prometheus
        )
        self._stream_s = _histogram(
            "longline_stream_duration_seconds", "How long streams lasted.", STREAM_BUCKETS_S, prometheus
        )
        self._k_dial_s = Histogram(
            KONNECTIVITY + "dial_duration_seconds", "Time to an answer.", buckets=DIAL_BUCKETS_S, registry=prometheus
        )
        self._k_stream_s = Histogram(
            KONNECTIVITY + "connection_duration_seconds",
            "How long streams lasted.",
            buckets=STREAM_BUCKETS_S,
            registry=prometheus,
        )
        self._k_failures: collections.Counter[str] = collections.Counter()
        self._frontends: dict[str, _Frontend] = {}
        prometheus.register(_Now(version, sources, self._k_failures))

    def render(self) -> bytes:
        """Returns all figures in the text format."""
        return generate_latest(self._prometheus)

    def answered(self, frontend: str, code: Code, seconds: float) -> None:
        """Counts that an open was answered; see OpenCounts."""
        figures = self._of(frontend)
        figures.dial_s.observe(seconds)
        self._k_dial_s.observe(seconds)
        if code is Code.NONE:
            figures.opened.inc()
        else:
            self._dials.labels(frontend, code.label).inc()
            self._k_failures[_REASONS.get(code, "error_response")] += 1

    def ended(self, frontend: str, reason: str, seconds: float) -> None:
        """Counts that a stream is over; see OpenCounts."""
        figures = self._of(frontend)
        if reason == "closed":
            figures.closed.inc()
        else:
            self._ended.labels(frontend, reason).inc()
        figures.stream_s.observe(seconds)
        self._k_stream_s.observe(seconds)

    # Internal

    def _of(self, frontend: str) -> _Frontend:
        if (found := self._frontends.get(frontend)) is None:
            found = self._frontends[frontend] = _Frontend(
                opened=self._dials.labels(frontend, "ok"),
                dial_s=self._dial_s.labels(frontend),
                closed=self._ended.labels(frontend, "closed"),
                stream_s=self._stream_s.labels(frontend),
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frontend:
    """The figures of one front end: to look them up by their labels each time cost as much as to count."""

    opened: Counter
    closed: Counter
    dial_s: Histogram
    stream_s: Histogram


class _Now(Collector):
    """The collector of what is so at the moment of a scrape."""

    def __init__(self, version: str, sources: Sources, failures: Mapping[str, int]) -> None:
        self._version = version
        self._sources = sources
        self._failures = failures

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment; prometheus_client calls it at each scrape."""
        yield _gauge("longline_build_info", "Which build this is.", ["version"], {(self._version,): 1.0})
        sources = self._sources
        agents = sources.agents.agents()
        yield from self._agents(agents)
        yield from self._opens()
        ends = {(name,): end.timestamp() for name, end in sources.expiries().items()}
        yield _gauge("longline_certificate_expiry_seconds", "Unix time of its end.", ["certificate"], ends)
        unreadable = {(): float(sources.unreadable())}
        text = "Records of agents and tokens that cannot be read."
        yield _gauge("longline_unreadable_records", text, [], unreadable)
        connections = sources.connections()
        yield _gauge(
            "longline_connections", "Clients being served.", ["listener"], {(k,): v for k, v in connections.items()}
        )
        strangers = {(name,): float(count) for name, count in sources.strangers().items()}
        yield _gauge("longline_strangers", "Clients that have not shown who they are.", ["listener"], strangers)
        up = {(name,): float(is_up) for name, is_up in sources.parts().items()}
        yield _gauge("longline_part_up", "Whether a part of the server is up.", ["part"], up)
        yield from self._records()
        yield from self._links()
        yield from self._limits()
        yield from self._config()
        yield from self._policy()
        ages = {(kind,): age_s for kind, age_s in sources.cluster_ages_s().items()}
        text = "Since the cluster's API was heard of a kind; 255 at most while all is well."
        yield _gauge("longline_cluster_watch_age_seconds", text, ["kind"], ages)
        clients = sum(count for name, count in connections.items() if name.startswith("connect"))
        connected = sum(agent.connected for agent in agents)
        dialling = sum(sources.live.dialling_by_frontend().values())
        for name, text, value in (
            ("ready_backend_connections", "Connected agents.", connected),
            ("established_connections", "Open streams.", len(sources.live) - dialling),
            ("pending_backend_dials", "Dials that wait for an answer.", dialling),
            (
                "http_connections",
                "Clients of HTTP CONNECT.",
                clients,
            ),
        ):
            yield _gauge(KONNECTIVITY + name, text, [], {(): value})
        yield _gauge(
            KONNECTIVITY + "ready_backends", "Connected agents.", ["proxy_strategy"], {("default",): connected}
        )
        yield _gauge(
            KONNECTIVITY + "grpc_connections",
            "Streams of gRPC by method.",
            ["service_method"],
            {("Connect",): connected, ("Proxy",): connections.get("konnectivity", 0)},
        )
        # Untyped: it counts, but its name has no _total, which the text format of a counter would add.
        failures = Metric(KONNECTIVITY + "dial_failure_count", "Failed dials by reason.", "unknown")
        for reason, count in self._failures.items():
            failures.add_sample(failures.name, {"reason": reason}, count)
        yield failures

    def _agents(self, agents: list[AgentView]) -> Iterator[Metric]:
        up = {(agent.name,): float(agent.connected) for agent in agents}
        yield _gauge("longline_agent_up", "Whether an agent's link is up.", ["agent"], up)
        ends = {(agent.name,): agent.certificate.not_after.timestamp() for agent in agents if agent.certificate}
        text = "Unix time of the end of its certificate, which it renews by itself."
        yield _gauge("longline_agent_certificate_expiry_seconds", text, ["agent"], ends)
        streams: dict[tuple[str, ...], float] = {}
        rtt_s: dict[tuple[str, ...], float] = {}
        kept: dict[tuple[str, ...], float] = {}
        for agent in agents:
            statistics = self._sources.agents.statistics(agent.name)
            if statistics is None:
                continue
            streams[agent.name,] = statistics.streams
            kept[agent.name,] = statistics.kept_bytes
            if agent.connected and statistics.pacing.rtt_s > 0:
                rtt_s[agent.name,] = statistics.pacing.rtt_s
        yield _gauge("longline_agent_streams", "Open streams.", ["agent"], streams)
        yield _gauge("longline_agent_unacked_bytes", "Bytes kept until the agent has them.", ["agent"], kept)
        yield _gauge("longline_agent_rtt_seconds", "Round trip of the link, queues included.", ["agent"], rtt_s)

    def _opens(self) -> Iterator[Metric]:
        live = self._sources.live
        dialling = {(name,): float(count) for name, count in live.dialling_by_frontend().items()}
        yield _gauge("longline_pending_dials", "Dials that wait for an answer.", ["frontend"], dialling)
        carried = CounterMetricFamily(
            "longline_stream_bytes", "Bytes of all streams, of those that run too.", labels=["frontend", "direction"]
        )
        for frontend, count in live.bytes_by_frontend().items():
            carried.add_metric([frontend, "to_agent"], count.to_agent)
            carried.add_metric([frontend, "from_agent"], count.from_agent)
        yield carried
        refused = CounterMetricFamily("longline_logins_refused", "Who could not say who they are.", labels=["frontend"])
        for frontend, times in self._sources.logins.counts.items():
            refused.add_metric([frontend], times)
        yield refused
        delayed = CounterMetricFamily("longline_logins_delayed", "Of these, such as waited for their answer.")
        delayed.add_metric([], self._sources.logins.delayed)
        yield delayed

    def _links(self) -> Iterator[Metric]:
        links = self._sources.links
        yield _counter(
            "longline_agent_links", "Links of agents: new sessions, and such as were resumed.", "session", links.links
        )
        yield _counter("longline_agent_links_lost", "Links that ended, by the code of the cause.", "code", links.lost)
        text = "Agents turned away, by the code of the cause."
        yield _counter("longline_agents_refused", text, "code", links.refused)
        failed = CounterMetricFamily(
            "longline_handshakes_failed", "TLS handshakes that failed, by cause.", labels=["listener", "reason"]
        )
        for listener, counts in self._sources.handshakes_failed().items():
            for cause, count in counts.items():
                failed.add_metric([listener, cause], count)
        yield failed
        memory = links.memory
        kinds = {("windows",): memory.used_bytes - memory.held_bytes, ("queues",): memory.held_bytes}
        text = "Memory of streams: promised to peers as windows, or taken by what waits to be sent or acknowledged."
        yield _gauge("longline_stream_memory_bytes", text, ["kind"], kinds)
        text = "What they may take together."
        yield _gauge("longline_stream_memory_limit_bytes", text, [], {(): memory.total_bytes})

    def _limits(self) -> Iterator[Metric]:
        sources = self._sources
        uses = sources.limits()
        yield _gauge("longline_limit", "Of [limits].", ["limit"], {(one.name,): one.limit for one in uses})
        yield _gauge("longline_limit_used", "What of it is used.", ["limit"], {(one.name,): one.used for one in uses})
        text = "Calls at the tunnel's port that were refused or ended, by the code of the cause."
        yield _counter("longline_tunnel_calls_refused", text, "code", sources.calls_refused())
        text = "Connections to the tunnel's port that were cut as they had no call, by reason."
        yield _counter("longline_tunnel_connections_cut", text, "reason", sources.connections_cut())

    def _policy(self) -> Iterator[Metric]:
        policy = self._sources.policy()
        for name, text, value in (
            ("generation", "Of the policy in use: 1 at the start, 1 more for each change.", policy.generation),
            ("fault", "Whether there is no policy file, or one that cannot be used.", bool(policy.fault)),
            ("loaded_seconds", "Unix time at which it was read.", policy.loaded.timestamp()),
        ):
            yield _gauge(f"longline_policy_{name}", text, [], {(): float(value)})

    def _config(self) -> Iterator[Metric]:
        config = self._sources.config()
        if config is None:
            return
        for name, text, value in (
            (
                "generation",
                "Of the configuration in use: 1 at the start, 1 more for each change.",
                config.generation,
            ),
            (
                "fault",
                "Whether the file cannot be used: the one before it stays.",
                bool(config.fault),
            ),
            ("needs_restart", "How many differences only a restart applies.", len(config.needs_restart)),
            ("loaded_seconds", "Unix time at which it was read.", config.loaded.timestamp()),
        ):
            yield _gauge(f"longline_config_{name}", text, [], {(): float(value)})

    def _records(self) -> Iterator[Metric]:
        lines = CounterMetricFamily("longline_log_lines_lost", "Log lines that could not be written.")
        lines.add_metric([], self._sources.lost_lines())
        yield lines
        audit = self._sources.audit
        records = CounterMetricFamily("longline_audit_records_lost", "Audit records that could not be written.")
        records.add_metric([], audit.lost)
        yield records
        yield _gauge("longline_audit_up", "Whether audit records can be written.", [], {(): float(not audit.fault)})
        yield _gauge("longline_audit_queued_bytes", "What waits to be written.", [], {(): audit.queued_bytes})


def _histogram(name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ["frontend"], buckets=buckets, registry=registry)


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
