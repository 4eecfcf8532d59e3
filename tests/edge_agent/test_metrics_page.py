"""The figures of the API of a node, as they stand on the agent's page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from edge_agent.metrics_page import _Figures


def figures(autonomy: dict[str, Any]) -> list[str]:
    """The lines of the page about it."""
    page = _Figures(cast(Any, SimpleNamespace(autonomy=autonomy)), cast(Any, None), lambda: (0, 0))

    class Part(Collector):
        def collect(self) -> Iterator[Metric]:
            return page._autonomy()

    registry = CollectorRegistry()
    registry.register(Part())
    return generate_latest(registry).decode().splitlines()


def test_what_is_out_of_date_and_what_waits() -> None:
    parts = [(True, True, 0.0), (True, True, 12.5), (True, False, 40.0), (False, False, 3.0)]
    scopes = [{"complete": complete, "kept": kept, "stale_s": stale} for complete, kept, stale in parts]
    lines = figures({
        "reached": False, "scopes": scopes, "passed": ["x"], "missing": [], "bytes": 5, "commits": 7,
        "node_refused_since": None,
        "waiting": {"statuses": 2, "events": 0},
        "dropped_why": {"statuses": {}, "events": {"no room": 1, "refused": 2}},
        "waiting_since": {"statuses": datetime.now(UTC) - timedelta(seconds=90), "events": None},
    })  # fmt: skip
    for wanted in (
        "longline_agent_api_server_reached 0.0", 'longline_agent_api_scopes{kept="false"} 3.0',
        'longline_agent_api_scope_stale_seconds{kept="true"} 12.5',
        'longline_agent_api_scope_stale_seconds{kept="false"} 40.0',
        'longline_agent_api_waiting_writes{kind="statuses"} 2.0',
        'longline_agent_api_dropped_writes_total{kind="events"} 3.0',
        'longline_agent_api_oldest_write_seconds{kind="events"} 0.0', "longline_agent_api_commits_total 7.0",
    ):  # fmt: skip
        assert wanted in lines
    (oldest,) = [line for line in lines if line.startswith('longline_agent_api_oldest_write_seconds{kind="statuses"}')]
    assert 90 <= float(oldest.split()[1]) < 120
