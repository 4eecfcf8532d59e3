"""What the server counts, in Prometheus' words.

Names that begin with `konnectivity_` mean here what they mean in konnectivity's server, so that its dashboards and
alerts go on working; what has no equal meaning is not offered under its name.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from cloud_server.agents.registry import AgentView, Registry
from tunnel.aio.process.log_sink import Lost
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
"""konnectivity's words for why a dial failed; all else is `error_response`."""


class Metrics:
    """All figures of one server. Front ends tell it what happens; the rest is read when somebody asks."""

    def __init__(
        self,
        version: str,
        registry: Registry,
        connections: Callable[[], Mapping[str, int]],
        lost_lines: Callable[[], Lost],
        parts: Callable[[], Mapping[str, bool]],
        expiries: Callable[[], Mapping[str, datetime]],
    ) -> None:
        """All of these are asked at each scrape.

        Args:
            version: of this build.
            registry: of the agents.
            connections: how many each listener serves.
            lost_lines: what is missing in the log so far.
            parts: whether each part of the server is up.
            expiries: when the server's certificates end.
        """
        self._prometheus = prometheus = CollectorRegistry()
        self._pending = Gauge(
            "longline_pending_dials", "Dials that wait for an answer.", ["frontend"], registry=prometheus
        )
        self._dials = Counter("longline_dials", "Dials by outcome.", ["frontend", "code"], registry=prometheus)
        self._dial_s = _histogram("longline_dial_duration_seconds", "Time to an answer.", DIAL_BUCKETS_S, prometheus)
        self._bytes = Counter(
            "longline_stream_bytes", "Bytes of ended streams.", ["frontend", "direction"], registry=prometheus
        )
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
        now = _Now(version, registry, connections, lost_lines, parts, expiries, self._pending, self._k_failures)
        prometheus.register(now)

    def render(self) -> bytes:
        """All of it in the text format."""
        return generate_latest(self._prometheus)

    @contextmanager
    def dial(self, frontend: str) -> Iterator[None]:
        """Count a dial that is made inside the block; a cancelled one has no outcome yet, `refused` may tell it."""
        figures = self._of(frontend)
        figures.pending.inc()
        started_s = time.perf_counter()
        try:
            yield
        finally:
            figures.pending.dec()
            duration_s = time.perf_counter() - started_s
            figures.dial_s.observe(duration_s)
            self._k_dial_s.observe(duration_s)

    def opened(self, frontend: str) -> None:
        """A dial was answered with a stream."""
        self._of(frontend).opened.inc()

    def refused(self, frontend: str, code: Code) -> None:
        """A dial failed, or its client gave up."""
        self._dials.labels(frontend, code.label).inc()
        self._k_failures[_REASONS.get(code, "error_response")] += 1

    def stream_ended(
        self, frontend: str, reason: str, *, to_agent_bytes: int, from_agent_bytes: int, duration_s: float
    ) -> None:
        """A stream is over."""
        figures = self._of(frontend)
        self._ended.labels(frontend, reason).inc()
        figures.to_agent_bytes.inc(to_agent_bytes)
        figures.from_agent_bytes.inc(from_agent_bytes)
        figures.stream_s.observe(duration_s)
        self._k_stream_s.observe(duration_s)

    # Internal

    def _of(self, frontend: str) -> _Frontend:
        if (found := self._frontends.get(frontend)) is None:
            found = self._frontends[frontend] = _Frontend(
                pending=self._pending.labels(frontend),
                opened=self._dials.labels(frontend, "ok"),
                dial_s=self._dial_s.labels(frontend),
                to_agent_bytes=self._bytes.labels(frontend, "to_agent"),
                from_agent_bytes=self._bytes.labels(frontend, "from_agent"),
                stream_s=self._stream_s.labels(frontend),
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frontend:
    """The figures of one front end: to look them up by their labels each time cost as much as to count."""

    pending: Gauge
    opened: Counter
    dial_s: Histogram
    to_agent_bytes: Counter
    from_agent_bytes: Counter
    stream_s: Histogram


class _Now(Collector):
    """What is so at the moment of a scrape."""

    def __init__(
        self,
        version: str,
        registry: Registry,
        connections: Callable[[], Mapping[str, int]],
        lost_lines: Callable[[], Lost],
        parts: Callable[[], Mapping[str, bool]],
        expiries: Callable[[], Mapping[str, datetime]],
        pending: Gauge,
        failures: Mapping[str, int],
    ) -> None:
        self._version = version
        self._failures = failures
        self._registry = registry
        self._connections = connections
        self._lost_lines = lost_lines
        self._parts = parts
        self._expiries = expiries
        self._pending = pending

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        yield _gauge("longline_build_info", "Which build this is.", ["version"], {(self._version,): 1.0})
        agents = self._registry.agents()
        yield from self._agents(agents)
        ends = {(name,): end.timestamp() for name, end in self._expiries().items()}
        yield _gauge("longline_certificate_expiry_seconds", "Unix time of its end.", ["certificate"], ends)
        connections = self._connections()
        yield _gauge(
            "longline_connections", "Clients being served.", ["listener"], {(k,): v for k, v in connections.items()}
        )
        up = {(name,): float(is_up) for name, is_up in self._parts().items()}
        yield _gauge("longline_part_up", "Whether a part of the server is up.", ["part"], up)
        lost = self._lost_lines()
        lines = CounterMetricFamily("longline_log_lines_lost", "Log lines that could not be written.", labels=["kind"])
        lines.add_metric(["audit"], lost.audit_records)
        lines.add_metric(["other"], lost.lines - lost.audit_records)
        yield lines
        clients = sum(count for name, count in connections.items() if name.startswith("connect"))
        connected = sum(agent.connected for agent in agents)
        streams = sum(session.core.stream_count for session in self._registry.sessions())
        for name, text, value in (
            ("ready_backend_connections", "Connected agents.", connected),
            ("established_connections", "Open streams.", streams),
            ("pending_backend_dials", "Dials that wait for an answer.", self._pending_dials()),
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
            session = self._registry.session(agent.name)
            if session is None:
                continue
            statistics = session.statistics()
            streams[agent.name,] = statistics.streams
            kept[agent.name,] = statistics.kept_bytes
            if agent.connected and statistics.pacing.rtt_s > 0:
                rtt_s[agent.name,] = statistics.pacing.rtt_s
        yield _gauge("longline_agent_streams", "Open streams.", ["agent"], streams)
        yield _gauge("longline_agent_unacked_bytes", "Bytes kept until the agent has them.", ["agent"], kept)
        yield _gauge("longline_agent_rtt_seconds", "Round trip of the link, queues included.", ["agent"], rtt_s)

    def _pending_dials(self) -> float:
        return sum(sample.value for metric in self._pending.collect() for sample in metric.samples)


def _histogram(name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, ["frontend"], buckets=buckets, registry=registry)


def _gauge(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
