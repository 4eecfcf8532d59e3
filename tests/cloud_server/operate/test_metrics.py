from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_server.agents.registry import Registry
from cloud_server.operate.metrics import Metrics
from tunnel.aio.identity.validity import Validity
from tunnel.aio.process.log_sink import Lost
from tunnel.core.wire.errors import Code

END = datetime(2026, 1, 2, tzinfo=UTC)
K = "konnectivity_network_proxy_server_"


class Joined:
    """Agents that joined and are not connected."""

    def names(self) -> Iterable[str]:
        return ["box-7", "box-8"]

    def joined(self, name: str) -> datetime | None:
        return datetime(2026, 1, 1, tzinfo=UTC) if name in self.names() else None

    def validity(self, name: str) -> Validity | None:
        return Validity(END, END) if name == "box-7" else None


@pytest.fixture
def metrics() -> Metrics:
    connections, parts = {"connect": 3, "fleet": 1}, {"socks": False, "fleet": True}
    return Metrics(
        "1.2.3", Registry(Joined()), lambda: connections, lambda: Lost(7, 2), lambda: parts, lambda: {"server": END}
    )


def scrape(metrics: Metrics) -> dict[str, float]:
    """Each sample by `name{label=value}`, as Prometheus would read it."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_what_is_so_now(metrics: Metrics) -> None:
    now = scrape(metrics)
    assert now["longline_build_info{version=1.2.3}"] == 1
    assert now["longline_agent_up{agent=box-7}"] == 0
    assert now["longline_agent_up{agent=box-8}"] == 0
    assert now["longline_connections{listener=connect}"] == 3
    assert now["longline_part_up{part=socks}"] == 0
    assert now["longline_part_up{part=fleet}"] == 1
    assert now["longline_certificate_expiry_seconds{certificate=server}"] == END.timestamp()
    assert now["longline_agent_certificate_expiry_seconds{agent=box-7}"] == END.timestamp()
    assert "longline_agent_certificate_expiry_seconds{agent=box-8}" not in now
    assert now[K + "http_connections"] == 3
    assert now[K + "ready_backend_connections"] == 0
    assert now[K + "established_connections"] == 0
    assert now[K + "pending_backend_dials"] == 0


def test_a_dial_that_waits_and_is_answered(metrics: Metrics) -> None:
    with metrics.dial("connect"):
        waiting = scrape(metrics)
        metrics.opened("connect")
    assert waiting["longline_pending_dials{frontend=connect}"] == 1
    assert waiting[K + "pending_backend_dials"] == 1
    after = scrape(metrics)
    assert after["longline_pending_dials{frontend=connect}"] == 0
    assert after["longline_dials_total{code=ok,frontend=connect}"] == 1
    assert after["longline_dial_duration_seconds_count{frontend=connect}"] == 1
    assert after[K + "dial_duration_seconds_count"] == 1


def test_a_dial_that_raises_is_no_longer_pending(metrics: Metrics) -> None:
    with pytest.raises(RuntimeError), metrics.dial("connect"):
        raise RuntimeError
    assert scrape(metrics)[K + "pending_backend_dials"] == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.UNKNOWN_AGENT, "no_agent"),
        (Code.AGENT_AWAY, "no_agent"),
        (Code.AMBIGUOUS, "no_agent"),
        (Code.DEADLINE, "backend_dial_timeout"),
        (Code.SESSION_LOST, "backend_close"),
        (Code.CANCELLED, "frontend_close"),
        (Code.REFUSED, "error_response"),
        (Code.NOT_ALLOWED, "error_response"),
    ],
)
def test_a_refused_dial_has_a_reason_in_both_languages(metrics: Metrics, code: Code, reason: str) -> None:
    metrics.refused("connect", code)
    metrics.refused("connect", code)
    now = scrape(metrics)
    assert now[f"longline_dials_total{{code={code.label},frontend=connect}}"] == 2
    assert now[f"{K}dial_failure_count{{reason={reason}}}"] == 2


def test_an_ended_stream(metrics: Metrics) -> None:
    metrics.stream_ended("forward", "closed", to_agent_bytes=10, from_agent_bytes=2000, duration_s=3.0)
    metrics.stream_ended("forward", "session_lost", to_agent_bytes=1, from_agent_bytes=0, duration_s=0.5)
    now = scrape(metrics)
    assert now["longline_stream_bytes_total{direction=to_agent,frontend=forward}"] == 11
    assert now["longline_stream_bytes_total{direction=from_agent,frontend=forward}"] == 2000
    assert now["longline_streams_ended_total{frontend=forward,reason=closed}"] == 1
    assert now["longline_streams_ended_total{frontend=forward,reason=session_lost}"] == 1
    assert now["longline_stream_duration_seconds_sum{frontend=forward}"] == 3.5
    assert now["longline_stream_duration_seconds_bucket{frontend=forward,le=1.0}"] == 1
    assert now[K + "connection_duration_seconds_count"] == 2


def test_lines_that_the_log_has_lost(metrics: Metrics) -> None:
    now = scrape(metrics)
    assert now["longline_log_lines_lost_total{kind=audit}"] == 2
    assert now["longline_log_lines_lost_total{kind=other}"] == 5
