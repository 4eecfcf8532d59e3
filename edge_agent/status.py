"""The status of an agent in one object: for `edge-agent status`, over the admin socket, and for the page of metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from edge_agent.agent import Agent
from edge_agent.config import AgentConfig
from edge_agent.identity.expiries import Ends
from edge_agent.identity.renewal import FAILURES, Renewals
from tunnel.aio.operate import daemon_calls
from tunnel.aio.operate.admin import AdminCall, AdminError, Routes
from tunnel.aio.operate.desired_state import DesiredState
from tunnel.aio.process.logs import level
from tunnel.aio.process.version import VERSION
from tunnel.core.wire.faults import KEY_NOT_ROTATED, RENEWAL_FAILED, fault_of

Verdict = Literal["good", "warning", "bad"]


class Status:
    """The status of one agent, put together whenever it is asked for; costs nothing in between."""

    def __init__(self, agent: Agent, desired: DesiredState[AgentConfig], ends: Ends, renewals: Renewals) -> None:
        self._agent = agent
        self.desired = desired
        self._ends = ends
        self._renewals = renewals
        self._since = datetime.now(UTC)

    def routes(self) -> Routes:
        """Returns the routes that the admin socket answers."""
        routes = Routes()
        routes.add("GET", "status", self._status)
        routes.add("POST", "reload", self._reload)
        routes.add("PUT", "log-level", self._log_level)
        routes.add("POST", "renew", self._renew)
        routes.add("POST", "rotate-key", self._rotate_key)
        return routes

    def as_json(self) -> dict[str, Any]:
        """Returns the whole status; its keys are those of the admin API."""
        (verdict, line), now = self.verdict(), datetime.now(UTC)
        agent = self._agent
        session = agent.links.session
        rtt_s = session.statistics().pacing.rtt_s if session is not None else 0.0
        ahead = agent.clock.ahead
        return {
            "verdict": verdict,
            "line": line,
            "agent": agent.name,
            "version": VERSION,
            "since": self._since,
            "servers": [
                {
                    "address": one.address,
                    "state": one.state,
                    "since": one.since,
                    "fault": one.reason or None,
                    "code": one.fault.code if one.fault is not None else None,
                }
                for one in agent.links.servers.states()
            ],
            "session": session.label if session is not None else None,
            "rtt_s": rtt_s or None,
            "streams": dict(agent.traffic.running()),
            "autonomy": agent.autonomy,
            "limits": [one._asdict() for one in agent.use_of_limits()],
            "parts": [part.as_json() for part in agent.parts.all()],
            "certificates": [one.as_json(now) for one in self._ends.watched],
            "facts": [fact.as_json() for fact in agent.facts.all()],
            "clock_ahead_s": ahead.total_seconds() if ahead is not None else None,
            "log_level": level(),
            "config": self.desired.as_json(),
        }

    def verdict(self) -> tuple[Verdict, str]:
        """Returns how the agent stands in a word and a line: `bad` only for an agent that nobody reaches."""
        agent, book = self._agent, self._agent.book
        server = next((one for one in agent.links.servers.states() if one.state == "up"), None)
        if server is None:
            since = f" since {book.away_since:%Y-%m-%d %H:%M:%S} UTC" if book.away_since is not None else ""
            why = f": {book.last_fault}" if book.last_fault else ""
            return "bad", f"{agent.name} has no link to the cloud{since}{why}"
        linked = f"{agent.name} is connected to {server.address} since {server.since:%Y-%m-%d %H:%M:%S} UTC"
        if current := agent.facts.current():
            more = f", and {len(current) - 1} more" if len(current) > 1 else ""
            return "warning", f"{linked}, but {current[0].text}{more}"
        if self.desired.needs_restart:
            return "warning", f"{linked}; its configuration needs a restart to apply: {self.desired.needs_restart[0]}"
        return "good", linked

    def days_left(self) -> dict[str, float]:
        """Returns how many days each certificate has left, by its name."""
        now = datetime.now(UTC)
        return {one.name: one.validity.days_left(now) for one in self._ends.watched}

    async def _status(self, _call: AdminCall) -> object:
        return self.as_json()

    async def _reload(self, call: AdminCall) -> object:
        check = f"edge-agent check --config {self.desired.path}"
        return (await daemon_calls.reload(call, self.desired.reload, check)).as_json()

    async def _renew(self, _call: AdminCall) -> object:
        return await self._renewed(new_key=False)

    async def _rotate_key(self, _call: AdminCall) -> object:
        return await self._renewed(new_key=True)

    async def _renewed(self, *, new_key: bool) -> object:
        try:
            await self._renewals.renew(new_key=new_key)
        except FAILURES as error:
            what = KEY_NOT_ROTATED if new_key else RENEWAL_FAILED
            raise AdminError(502, f"{fault_of(error).code}: {error}", code=what.code) from error
        return {"agent": self._agent.name, "new_key": new_key}

    async def _log_level(self, call: AdminCall) -> object:
        return daemon_calls.set_log_level(call)
