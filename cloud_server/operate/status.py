"""Tells how the server fares: a verdict in one line, and a warning with a code and a remedy for each thing that is
wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cloud_server.operate.agent_book import Tally
from cloud_server.trust.user_administration import Access
from tunnel.aio.identity.validity import Standing, Watched
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.process.limit_use import LimitUse
from tunnel.aio.process.parts import Parts
from tunnel.core.wire import faults
from tunnel.core.wire.faults import Fault

NAMED = 5
"""How many agents a line names; the others are counted."""
SILENT = timedelta(hours=1)
"""How long a box that joined and never came counts as on its way; after that there is a warning."""
SETTLED_S = 60.0
"""Seconds after a start in which agents are not missed yet: they need some time to come back."""
_ASK_CLUSTER = "kubectl get nodes, with the file of [kubernetes] kubeconfig"
_ASK_ISSUER = "curl ISSUER/.well-known/openid-configuration, from the server"
GOOD, WARNING, BAD = "good", "warning", "bad"

Json = dict[str, Any]


class Config(Protocol):
    """How the configuration, or the policy, stands; see `DesiredState`."""

    @property
    def fault(self) -> str: ...  # noqa: D102
    @property
    def needs_restart(self) -> Sequence[str]: ...  # noqa: D102

    def as_json(self) -> Json:
        """Returns the state of the configuration as the admin API shows it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources that are asked for each status."""

    version: str
    since: datetime
    server_id: str
    config_path: str
    agents: Callable[[], Awaitable[Tally]]
    joined_at: Callable[[str], datetime | None]
    """Returns when an agent joined; None when that cannot be told."""
    opens: Callable[[], int]
    parts: Parts
    certificates: Callable[[], Sequence[Watched]]
    """Returns the server's own certificates."""
    users: Callable[[], Sequence[Watched]]
    """Returns the certificates of users that were seen in use and end soon."""
    late_agents: Callable[[], Sequence[str]]
    """Returns the agents whose certificate was not renewed in time."""
    access: Callable[[], Access]
    """Returns how many users may log in, and whose last credential ends next."""
    config: Config
    policy: Config
    policy_missing: Callable[[], bool]
    """Returns whether there has been no policy since the start."""
    audit: AuditLog
    lost_lines: Callable[[], int]
    store_fault: Callable[[], str]
    unreadable: Callable[[], int]
    """Returns how many records of agents and tokens cannot be read."""
    issuer_away: Callable[[], str]
    """Returns why the issuer of ID tokens does not give its keys now; empty when it does, and when there is none."""
    cluster_away: Callable[[], str]
    cluster_ages_s: Callable[[], Mapping[str, float]]
    limits: Callable[[], Sequence[LimitUse]]
    """Returns how much of each limit is used."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning: something that is wrong."""

    fault: Fault
    text: str
    remedy: str
    bad: bool = False
    """Whether the server does not do what it is there for."""

    def as_json(self) -> Json:
        """Returns the warning as the admin API shows it."""
        return {"code": self.fault.code, "text": self.text, "remedy": self.remedy}


class Status:
    """The status of a server, which answers `GET status`."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def as_json(self) -> Json:
        """Returns how it all stands at this moment, as the admin API shows it."""
        sources, now = self._sources, datetime.now(UTC)
        tally = await sources.agents()
        joined, up, opens = tally.joined, tally.up, sources.opens()
        warnings = [*self._certificates(now), *self._agents(tally, now), *self._server()]
        warnings.sort(key=lambda warned: not warned.bad)
        verdict = BAD if any(warned.bad for warned in warnings) else WARNING if warnings else GOOD
        return {
            "verdict": verdict,
            "line": _line(joined, up, opens, warnings),
            "version": sources.version,
            "since": sources.since,
            "server_id": sources.server_id,
            "agents": {"joined": joined, "connected": up, "away": joined - up},
            "opens": opens,
            "users": sources.access()._asdict(),
            "warnings": [warned.as_json() for warned in warnings],
            "config": sources.config.as_json(),
            "policy": sources.policy.as_json(),
            "parts": [part.as_json() for part in sources.parts.all()],
            "certificates": [one.as_json(now) for one in sources.certificates()],
            "limits": [one._asdict() for one in sources.limits()],
        }

    # Internal

    def _certificates(self, now: datetime) -> Iterator[Warned]:
        for one in self._sources.certificates():
            yield from _ending(one, now, bad=True)
        for one in self._sources.users():
            yield from _ending(one, now, bad=False)

    def _agents(self, tally: Tally, now: datetime) -> Iterator[Warned]:
        there = tally.away
        if there and not tally.up and (now - self._sources.since).total_seconds() > SETTLED_S:
            text = f"none of {len(there)} agents is connected" if len(there) > 1 else f"{there[0]} is not connected"
            remedy = "look whether boxes reach the tunnel's port: firewall, DNS, the log's handshakes that failed"
            yield Warned(faults.AGENT_AWAY, text, remedy, bad=True)
        never = [name for name in tally.never_came if self._joined_before(name, now - SILENT)]
        if never:
            remedy = "on the box: systemctl status edge-agent; for one that is not to come: cloud-server agent forget"
            yield Warned(faults.AGENT_AWAY, f"joined and never came: {_names(never)}", remedy)
        if late := self._sources.late_agents():
            text = f"certificates that were not renewed will lock out {_names(late)}"
            yield Warned(faults.AGENTS_LOCKED_OUT, text, "the log of edge-agent on each box says why it did not renew")
        for code, names in sorted(tally.facts.items()):
            fault = faults.FAULTS[code]
            yield Warned(fault, f"{fault.title}: {_names(names)}", f"longline agents {min(names)}")

    def _joined_before(self, name: str, moment: datetime) -> bool:
        joined = self._sources.joined_at(name)
        return joined is not None and joined < moment

    def _policy(self) -> Iterator[Warned]:
        sources = self._sources
        if sources.policy_missing():
            text = "there is no policy: users may do nothing"
            remedy = f"cloud-server policy init --admin NAME --config {sources.config_path}"
            yield Warned(faults.POLICY_MISSING, text, remedy)
        elif sources.policy.fault:
            text = f"the policy file cannot be used, the one before stays: {sources.policy.fault}"
            yield Warned(faults.POLICY_INVALID, text, f"cloud-server policy check --config {sources.config_path}")

    def _server(self) -> Iterator[Warned]:
        sources = self._sources
        for part in sources.parts.all():
            if not part.up and part.fault:
                yield Warned(part.cause, f"{part.name} is down: {part.fault}", f"longline explain {part.cause.code}")
        if sources.config.fault:
            text = f"the configuration file cannot be used, the one before stays: {sources.config.fault}"
            yield Warned(faults.CONFIG_INVALID, text, f"cloud-server check --config {sources.config_path}")
        if sources.config.needs_restart:
            text = f"only a restart applies {'; '.join(sources.config.needs_restart)}"
            yield Warned(faults.RESTART_NEEDED, text, "systemctl restart cloud-server")
        yield from self._policy()
        if fault := sources.audit.fault:
            remedy = "make room, or mend [audit] file"
            yield Warned(faults.AUDIT_NOT_WRITTEN, fault, remedy, bad=sources.audit.refuses)
        elif lost := sources.audit.lost:
            text = f"{lost} audit records could not be written since this start"
            yield Warned(faults.AUDIT_NOT_WRITTEN, text, "the log says when, and why")
        if lines := sources.lost_lines():
            text = f"{lines} log lines could not be written since this start"
            yield Warned(faults.LOG_LINES_LOST, text, "look at what reads the log: journald, the container's runtime")
        if fault := sources.store_fault():
            yield Warned(faults.STATE_UNREADABLE, fault, "look at the disk of the state folder", bad=True)
        if count := sources.unreadable():
            text = f"{count} record{'s' if count > 1 else ''} of agents or tokens cannot be read"
            yield Warned(faults.RECORD_UNREADABLE, text, "cloud-server agent list")
        if away := sources.issuer_away():
            yield Warned(
                faults.ISSUER_UNREACHABLE, f"the issuer of ID tokens does not say its keys: {away}", _ASK_ISSUER
            )
        if away := sources.cluster_away():
            age_s = max(sources.cluster_ages_s().values(), default=0.0)
            text = f"the cluster's API has given no news for {age_s:.0f} s, going on with what is known: {away}"
            yield Warned(faults.CLUSTER_UNAVAILABLE, text, _ASK_CLUSTER)


def _ending(one: Watched, now: datetime, *, bad: bool) -> Iterator[Warned]:
    standing = one.standing(now)
    if standing is Standing.GOOD:
        return
    over = standing in (Standing.OVER, Standing.NOT_YET)
    fault = faults.CERTIFICATE_EXPIRED if over else faults.CERTIFICATE_ENDS_SOON
    yield Warned(fault, one.told(now), one.remedy, bad=bad and over)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _line(joined: int, up: int, opens: int, warnings: Sequence[Warned]) -> str:
    agents = f"{up} of {joined} agent{'' if joined == 1 else 's'} connected" if joined else "no agent has joined"
    running = f"{opens} connection{'' if opens == 1 else 's'} open"
    bad = [warned.text for warned in warnings if warned.bad]
    count = f"{len(warnings)} warning{'' if len(warnings) == 1 else 's'}" if warnings else "no warnings"
    return "; ".join([*bad[:1], f"{agents}, {running}", count])
