from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.live import LiveOpens
from cloud_server.operate.metrics import Metrics, Sources
from cloud_server.routing.route import Route
from cloud_server.trust.authenticator import LoginRefused
from tests.cloud_server.frontends.site import Site, site
from tests.support.doors import Doors, Records, asking
from tests.support.waits import eventually
from tunnel.aio.identity.validity import Validity
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.handshake_fault import Cause
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code
from tunnel.core.wire.target import TcpTarget

END = datetime(2026, 1, 2, tzinfo=UTC)
K = "konnectivity_network_proxy_server_"


@dataclass
class _Links:
    links: Counter[str]
    lost: Counter[str]
    refused: Counter[str]
    memory: Budget


@dataclass
class _Config:
    generation: int
    fault: str
    needs_restart: list[str]
    loaded: datetime


MEMORY = Budget(total_bytes=1000, reserved_bytes=200, held_bytes=100)
LINKS = _Links(Counter(new=5, resumed=3), Counter(LL3012=7), Counter(LL2015=1), MEMORY)
CONFIG = _Config(4, "not TOML", ["tunnel.listen: changed"], END)


class Joined:
    """Agents that joined and are not connected."""

    def names(self) -> Iterable[str]:
        return ["box-7", "box-8"]

    def joined(self, name: str) -> datetime | None:
        return datetime(2026, 1, 1, tzinfo=UTC) if name in self.names() else None

    def validity(self, name: str) -> Validity | None:
        return Validity(END, END) if name == "box-7" else None


class Far:
    """An agent's side over a real session, with a server's figures of it."""

    def __init__(self, far: Site, audit: AuditLog) -> None:
        connections, parts = {"connect": 3, "fleet": 1}, {"socks": False, "fleet": True}
        live, self.logins = LiveOpens(), RefusedLogins(Records())
        sources = Sources(
            agents=Agents(Joined(), MemoryDirectory()),
            live=live,
            logins=self.logins,
            audit=audit,
            connections=lambda: connections,
            strangers=lambda: {"connect": 2},
            lost_lines=lambda: 7,
            parts=lambda: parts,
            expiries=lambda: {"server": END},
            links=LINKS,
            handshakes_failed=lambda: {"tunnel": {Cause.EXPIRED: 2}, "fleet": {Cause.OURS_REFUSED: 1}},
            config=lambda: CONFIG,
            policy=lambda: CONFIG,
            cluster_ages_s=lambda: {"Node": 4.5},
            limits=lambda: [LimitUse("tunnel_waiting", 640, 3)],
            calls_refused=lambda: {"LL2022": 5},
            connections_cut=lambda: {"made no call in time": 6},
            unreadable=lambda: 3,
        )
        self.metrics = Metrics("1.2.3", sources)
        self.doors = Doors(far, counts=self.metrics, live=live)

    async def open(self, port: int, frontend: str = "connect") -> Stream:
        route = Route("box-7", TcpTarget("127.0.0.1", port))
        live = await self.doors.door.open(asking(route, frontend=frontend))
        assert live is not None
        return live.opened()


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    audit = AuditLog("/dev/null")
    async with site() as made:
        yield Far(made, audit)
    await audit.aclose()


@pytest.fixture
def metrics(far: Far) -> Metrics:
    return far.metrics


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
    assert now["longline_strangers{listener=connect}"] == 2
    assert now["longline_part_up{part=socks}"] == 0
    assert now["longline_part_up{part=fleet}"] == 1
    assert now["longline_unreadable_records"] == 3
    assert now["longline_certificate_expiry_seconds{certificate=server}"] == END.timestamp()
    assert now["longline_agent_certificate_expiry_seconds{agent=box-7}"] == END.timestamp()
    assert "longline_agent_certificate_expiry_seconds{agent=box-8}" not in now
    assert now[K + "http_connections"] == 3
    assert now[K + "ready_backend_connections"] == 0
    assert now[K + "established_connections"] == 0
    assert now[K + "pending_backend_dials"] == 0


async def test_a_dial_that_waits_and_is_given_up(far: Far) -> None:
    opening = asyncio.get_running_loop().create_task(far.open(3))
    await eventually(lambda: scrape(far.metrics)[K + "pending_backend_dials"] == 1)
    assert scrape(far.metrics)["longline_pending_dials{frontend=connect}"] == 1
    opening.cancel()
    await asyncio.wait([opening])
    after = scrape(far.metrics)
    assert after.get("longline_pending_dials{frontend=connect}", 0) == after[K + "pending_backend_dials"] == 0
    assert after["longline_dials_total{code=shutting_down,frontend=connect}"] == 1
    assert after["longline_dial_duration_seconds_count{frontend=connect}"] == 1


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
    metrics.answered("connect", code, 0.1)
    metrics.answered("connect", code, 0.1)
    now = scrape(metrics)
    assert now[f"longline_dials_total{{code={code.label},frontend=connect}}"] == 2
    assert now[f"{K}dial_failure_count{{reason={reason}}}"] == 2


async def test_a_stream_counts_while_it_runs_and_once_when_it_is_over(far: Far) -> None:
    stream = await far.open(7, "forward")
    await stream.write(b"1234567890")
    assert await stream.read() == b"1234567890"
    running = scrape(far.metrics)
    assert running["longline_stream_bytes_total{direction=to_agent,frontend=forward}"] == 10
    assert running["longline_stream_bytes_total{direction=from_agent,frontend=forward}"] == 10
    assert running["longline_dials_total{code=ok,frontend=forward}"] == 1
    assert running[K + "established_connections"] == 1
    assert running["longline_streams_ended_total{frontend=forward,reason=closed}"] == 0
    await stream.write_eof()
    await eventually(lambda: not len(far.doors.live))
    stream = await far.open(7, "forward")
    await stream.write(b"1")
    await stream.read()
    stream.reset(Code.SESSION_LOST, "gone")
    now = scrape(far.metrics)
    assert now["longline_stream_bytes_total{direction=to_agent,frontend=forward}"] == 11
    assert now["longline_stream_bytes_total{direction=from_agent,frontend=forward}"] == 11
    assert now["longline_streams_ended_total{frontend=forward,reason=closed}"] == 1
    assert now["longline_streams_ended_total{frontend=forward,reason=session_lost}"] == 1
    assert now["longline_stream_duration_seconds_count{frontend=forward}"] == 2
    assert now[K + "connection_duration_seconds_count"] == 2
    assert now[K + "established_connections"] == 0


async def test_who_could_not_log_in_and_what_could_not_be_recorded(far: Far) -> None:
    async def gone() -> None:
        """The client does not wait for its answer."""

    await far.logins.turn_away("socks", "192.0.2.1:5000", LoginRefused("no such token"), gone)
    now = scrape(far.metrics)
    assert now["longline_logins_refused_total{frontend=socks}"] == 1
    assert now["longline_logins_delayed_total"] == 0
    assert (now["longline_audit_up"], now["longline_audit_records_lost_total"]) == (1, 0)


def test_lines_that_the_log_has_lost(metrics: Metrics) -> None:
    now = scrape(metrics)
    assert now["longline_log_lines_lost_total"] == 7


def test_every_figure_stands_in_the_document_and_no_other(far: Far) -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    own, konnectivity = text.split("konnectivity's server")
    described = set(re.findall(r"`(longline_\w+)` \|", own))
    described |= {
        K + name
        for row in re.findall(r"^\| (`.*?) \|", konnectivity, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    shown = {family.name for family in text_string_to_metric_families(far.metrics.render().decode())}
    shown = {name for name in shown if not name.endswith("_created")}
    assert {name.removesuffix("_total") for name in described} == shown


async def test_links_configuration_and_the_cluster(far: Far) -> None:
    now = scrape(far.metrics)
    assert now["longline_agent_links_total{session=new}"] == 5
    assert now["longline_agent_links_total{session=resumed}"] == 3
    assert now["longline_agent_links_lost_total{code=LL3012}"] == 7
    assert now["longline_agents_refused_total{code=LL2015}"] == 1
    assert now["longline_handshakes_failed_total{listener=tunnel,reason=expired}"] == 2
    assert now["longline_limit{limit=tunnel_waiting}"] == 640
    assert now["longline_limit_used{limit=tunnel_waiting}"] == 3
    assert now["longline_tunnel_calls_refused_total{code=LL2022}"] == 5
    assert now["longline_tunnel_connections_cut_total{reason=made no call in time}"] == 6
    assert now["longline_handshakes_failed_total{listener=fleet,reason=ours_refused}"] == 1
    assert now["longline_stream_memory_bytes{kind=windows}"] == 200
    assert now["longline_stream_memory_bytes{kind=queues}"] == 100
    assert now["longline_stream_memory_limit_bytes"] == 1000
    assert now["longline_config_generation"] == 4
    assert (now["longline_policy_generation"], now["longline_policy_fault"]) == (4, 1)
    assert (now["longline_config_fault"], now["longline_config_needs_restart"]) == (1, 1)
    assert now["longline_cluster_watch_age_seconds{kind=Node}"] == 4.5
