"""Turns what goes wrong on the box into facts: parts that are down, a bad file, certificates that end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from edge_agent.agent import Agent
from edge_agent.config import AgentConfig
from edge_agent.identity.expiries import Ends
from tunnel.aio.identity.validity import Standing
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.operate.desired_state import DesiredState, Reloaded
from tunnel.core.wire import faults
from tunnel.core.wire.faults import Fault

LOOK_S = 2.0
"""The seconds between two looks at parts and certificates; none takes longer than reading a few attributes."""

_log = structlog.get_logger("edge.agent")


class Troubles:
    """Looks for what goes wrong at one agent, for as long as it runs."""

    def __init__(self, agent: Agent, audit: AuditLog, ends: Ends, host_faults: list[str]) -> None:
        """Takes what it looks at, and logs `host_faults`: those of a `[host]` that was left out at the start."""
        self._agent = agent
        self._audit = audit
        self._ends = ends
        self._host_faults = host_faults
        self._desired: DesiredState[AgentConfig] | None = None
        if host_faults:
            _log.error(
                "[host] cannot be used and is left out: no commands and no logs from this box",
                code=faults.HOST_SECTION_INVALID.code,
                reason="; ".join(host_faults),
            )

    @property
    def fault(self) -> str:
        """Returns why the file could not be used whole at the start; empty when it could."""
        return "\n".join(self._host_faults)

    def follow(self, desired: DesiredState[AgentConfig]) -> None:
        """Looks from now on at how the configuration file fares, too."""
        self._desired = desired

    def reloaded(self, told: Reloaded) -> None:
        """Takes note that the file was read anew: records it, and looks at once."""
        if not told.fault:
            self._host_faults = []
        if told.changed:
            self._audit.record("config", **told.as_json())
        self.look()

    async def run(self) -> None:
        """Looks every LOOK_S seconds until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Makes the facts what they are now."""
        self._agent.facts.only("box:", dict(self._found()))

    def _found(self) -> list[tuple[str, tuple[Fault, str]]]:
        found = [
            (f"part:{part.name}", (part.cause, f"{part.name} is down: {part.fault}"))
            for part in self._agent.parts.all()
            if not part.up and part.fault
        ]
        if self._host_faults:
            text = f"[host] is left out: {self._host_faults[0]}"
            found.append(("host", (faults.HOST_SECTION_INVALID, text)))
        elif self._desired is not None and self._desired.fault:
            text = f"the configuration file cannot be used, the one before stays: {self._desired.fault}"
            found.append(("config", (faults.CONFIG_INVALID, text)))
        if fault := self._audit.fault:
            found.append(("audit", (faults.AUDIT_NOT_WRITTEN, fault)))
        now = datetime.now(UTC)
        for one in self._ends.watched:
            standing = one.standing(now)
            if standing not in (Standing.GOOD, Standing.NOT_YET):
                over = standing is Standing.OVER
                text = f"{one.what} {'expired' if over else 'ends'} on {one.validity.not_after:%Y-%m-%d}: {one.remedy}"
                cause = faults.CERTIFICATE_EXPIRED if over else faults.CERTIFICATE_ENDS_SOON
                found.append((f"certificate:{one.name}", (cause, text)))
        return found
