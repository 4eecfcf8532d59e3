"""The agent's page for Prometheus: `/metrics`, `/livez` and `/readyz`, as the server has it; only with `[metrics]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from edge_agent.agent import Agent
from edge_agent.status import Status
from tunnel.aio.http.metrics_endpoint import MetricsEndpoint
from tunnel.aio.process.version import VERSION

PREFIX = "longline_agent_"


class MetricsPage:
    """The page of metrics: it reads the agent when somebody asks, and holds nothing."""

    def __init__(self, agent: Agent, status: Status, lost: Callable[[], tuple[int, int]]) -> None:
        """Prepares the page; `lost` returns how many log lines and audit records could not be written so far."""
        self._agent = agent
        self._status = status
        registry = CollectorRegistry()
        registry.register(_Figures(agent, status, lost))
        self.endpoint = MetricsEndpoint(lambda: generate_latest(registry), self._not_ready, self._remarks)
        """The endpoint that serves the connections of a listener."""

    def _not_ready(self) -> str:
        verdict, line = self._status.verdict()
        return line if verdict == "bad" else ""

    def _remarks(self) -> list[str]:
        return [f"{fact.code}: {fact.text}" for fact in self._agent.facts.current()]


class _Figures(Collector):
    def __init__(self, agent: Agent, status: Status, lost: Callable[[], tuple[int, int]]) -> None:
        self._agent = agent
        self._status = status
        self._lost = lost

    def describe(self) -> list[Metric]:
        """Returns nothing, so that a registry need not ask for all figures at once to know their names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields all figures."""
        yield from self._link()
        yield from self._traffic()
        yield from self._state()
        yield from self._autonomy()

    def _link(self) -> Iterator[Metric]:
        book = self._agent.book
        yield _gauge("connected", "Whether a link is up.", book.away_since is None)
        ups = _counter("links", "Links that came up, by whether the session was resumed.", "resumed")
        for resumed in (False, True):
            ups.add_metric([str(resumed).lower()], book.ups[resumed])
        yield ups
        for name, about, counts in (
            ("links_lost", "Links that were lost, by the code of the cause.", book.losses),
            ("dial_failures", "Dials and handshakes that came to nothing, by the code of the cause.", book.failures),
        ):
            family = _counter(name, about, "code")
            for code, count in counts.items():
                family.add_metric([code], count)
            yield family
        session = self._agent.links.session
        if session is not None and session.attached:
            yield _gauge("rtt_seconds", "Round trip of the link.", session.statistics().pacing.rtt_s)
        memory = self._agent.memory
        text = "Memory of streams: promised to peers as windows, or taken by what waits to be sent or acknowledged."
        used = _labelled_gauge("stream_memory_bytes", text, "kind")
        used.add_metric(["windows"], memory.used_bytes - memory.held_bytes)
        used.add_metric(["queues"], memory.held_bytes)
        yield used
        yield _gauge("stream_memory_limit_bytes", "What they may take together.", memory.total_bytes)

    def _traffic(self) -> Iterator[Metric]:
        traffic = self._agent.traffic
        running = _labelled_gauge("streams", "Streams that run.", "service")
        for service, count in traffic.running().items():
            running.add_metric([service], count)
        opened = _counter("streams_opened", "Streams that were opened.", "service")
        for service, count in traffic.opened.items():
            opened.add_metric([service], count)
        refused = _counter("streams_refused", "Streams that were refused.", "service", "code")
        for (service, code), count in traffic.refused.items():
            refused.add_metric([service, code.label], count)
        carried = _counter("stream_bytes", "Bytes of all streams, those that run included.", "service", "direction")
        for service, (to_agent, from_agent) in traffic.bytes().items():
            carried.add_metric([service, "to_agent"], to_agent)
            carried.add_metric([service, "from_agent"], from_agent)
        yield from (running, opened, refused, carried)

    def _autonomy(self) -> Iterator[Metric]:
        autonomy = self._agent.autonomy
        if autonomy is None:
            return
        yield _gauge("api_server_reached", "Whether the API server of the node is reached.", autonomy["reached"])
        about = "Whether the API server does not take the certificate of the node (401)."
        yield _gauge("api_node_refused", about, autonomy["node_refused_since"] is not None)
        about = "Parts of the API that are asked for on the node, by whether they are kept for when it is away."
        scopes = _labelled_gauge("api_scopes", about, "kept")
        kept = sum(scope["complete"] and scope["kept"] for scope in autonomy["scopes"])
        scopes.add_metric(["true"], kept)
        scopes.add_metric(
            ["false"], len(autonomy["scopes"]) - kept + len(autonomy["passed"]) + len(autonomy["missing"])
        )
        yield scopes
        about = "Seconds for which the part that is out of date for longest may have been so, by whether it is kept."
        stale = _labelled_gauge("api_scope_stale_seconds", about, "kept")
        for is_kept in (True, False):
            ages = [one["stale_s"] for one in autonomy["scopes"] if (one["complete"] and one["kept"]) is is_kept]
            stale.add_metric([str(is_kept).lower()], max(ages, default=0.0))
        yield stale
        yield _gauge("api_kept_bytes", "Memory of what is kept of the API.", autonomy["bytes"])
        about = "What was written while the API server was away, and waits to be told."
        waiting = _labelled_gauge("api_waiting_writes", about, "kind")
        dropped = _counter("api_dropped_writes", "What was accepted so and refused by the API server later.", "kind")
        for kind, count in autonomy["waiting"].items():
            waiting.add_metric([kind], count)
        for kind, why in autonomy["dropped_why"].items():
            dropped.add_metric([kind], sum(why.values()))
        yield from (waiting, dropped)
        since = _labelled_gauge(
            "api_oldest_write_seconds", "For how long the oldest of them waits; 0: none does.", "kind"
        )
        now = datetime.now(UTC)
        for kind, moment in autonomy["waiting_since"].items():
            since.add_metric([kind], max((now - moment).total_seconds(), 0.0) if moment is not None else 0.0)
        yield since
        yield CounterMetricFamily(f"{PREFIX}api_commits", "Transactions of what is kept.", value=autonomy["commits"])

    def _state(self) -> Iterator[Metric]:
        agent = self._agent
        info = _labelled_gauge("info", "This build.", "version")
        info.add_metric([VERSION], 1)
        parts = _labelled_gauge("part_up", "Whether each part of the agent is up.", "part")
        for part in agent.parts.all():
            parts.add_metric([part.name], part.up)
        yield from (info, parts)
        lines, records = self._lost()
        yield CounterMetricFamily(f"{PREFIX}log_lines_lost", "Log lines that could not be written.", value=lines)
        yield CounterMetricFamily(f"{PREFIX}audit_records_lost", "Audit records that were not written.", value=records)
        status = self._status
        yield _gauge("config_generation", "Counts the configurations that were applied.", status.desired.generation)
        yield _gauge("config_fault", "Whether the configuration file cannot be used.", bool(status.desired.fault))
        days = _labelled_gauge("certificate_days_left", "Days until each certificate ends.", "certificate")
        for name, left in status.days_left().items():
            days.add_metric([name], left)
        yield days
        uses = self._agent.use_of_limits()
        limits = _labelled_gauge("limit", "Of [limits].", "limit")
        used = _labelled_gauge("limit_used", "What of it is used.", "limit")
        for one in uses:
            limits.add_metric([one.name], one.limit)
            used.add_metric([one.name], one.used)
        yield from (limits, used)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, about, value=float(value))


def _labelled_gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, about, labels=labels)


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, about, labels=labels)
