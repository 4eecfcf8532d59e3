"""Keeps what each agent may ask for: links, and what it does over them. It outlives sessions, so that a box that comes
back is not given everything anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tunnel.core.path.allowance import Allowance
from tunnel.core.path.rate import Rate, TokenBuckets
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import LINKS_TOO_OFTEN
from tunnel.core.wire.limits import Limits
from tunnel.core.wire.spoken import spoken_s

LINKS = Rate(0.5, 120)
"""The links that one agent may make. One whose link breaks as soon as it is up dials again every few seconds; each link
costs us 1 to 2 ms, most of them for TLS.
"""
OPENS = Rate(100.0, 500)
"""The streams that one agent may open towards the cloud. Each takes about 1 ms here: a box that opens as many as it can
takes a tenth of a core.
"""
MAX_KEPT = 16 * 1024
"""How many agents' allowances are kept at least, at 400 bytes each. Beyond it those of agents without a session go."""


class AgentPace:
    """The pace of all agents, by name. Only names that are on record may be asked for: it remembers each."""

    def __init__(self, limits: Limits, links: Rate = LINKS) -> None:
        """Begins with nobody having asked for anything. `limits` say how many streams an agent may open."""
        self._limits = limits
        self._links = TokenBuckets(*links)
        self._allowances: dict[str, Allowance] = {}
        self._tidy_at = MAX_KEPT

    def use(self, links: Rate, opens: Rate) -> None:
        """Holds agents to other rates from now on. What they used counts on."""
        self._links.change(*links)
        self._limits = replace(self._limits, opens_per_s=opens.per_s, opens_burst=opens.at_once)
        for allowance in self._allowances.values():
            allowance.opens.change(*opens)

    def check_link(self, name: str, now: float) -> None:
        """Counts a new link of an agent.

        Raises:
            SessionRefused: it makes links too often; it is told when to come back, and its session waits for it.
        """
        wait_s = self._links.take(name, now)
        if wait_s:
            text = f"{name} makes its link anew too often: once in {spoken_s(self._links.every_s)} is allowed"
            raise SessionRefused(text, Code.LIMIT_EXCEEDED, wait_s, LINKS_TOO_OFTEN)

    def allowance(self, name: str, now: float, has_session: Callable[[str], bool]) -> Allowance:
        """Returns the allowance of an agent, for another session of it. `has_session` says which agents have one."""
        allowance = self._allowances.get(name)
        if allowance is None:
            if len(self._allowances) >= self._tidy_at:
                self._allowances = {name: one for name, one in self._allowances.items() if has_session(name)}
                self._tidy_at = max(MAX_KEPT, 2 * len(self._allowances))
            allowance = self._allowances[name] = Allowance(self._limits, now)
        return allowance
