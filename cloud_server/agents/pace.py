"""Keeps what each agent may ask for: links, and what it does over them. It outlives sessions, so that a box that comes
back is not given everything anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from tunnel.aio.process.limit_use import LimitUse, most, one_less
from tunnel.core.path.allowance import Allowance
from tunnel.core.path.rate import Rate, TokenBuckets
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import LINK_FLOODED, LINKS_TOO_OFTEN
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
MAX_LINK_WAIT_S = 4.0
"""The longest that a link waits for its turn. An agent gives the server 10 s to answer its Hello."""
MAX_HELD = 4
"""How many links of one agent wait for their refusal at a time: whoever heeds no advice is slowed by it. Further ones
are refused at once.
"""
MAX_KEPT = 16 * 1024
"""How many agents' allowances are kept at least, at 400 bytes each. Beyond it those of agents without a session go."""


class AgentPace:
    """The pace of all agents, by name. Only names that are on record may be asked for: it remembers each."""

    def __init__(self, limits: Limits, links: Rate = LINKS) -> None:
        """Begins with nobody having asked for anything. `limits` say how many streams an agent may open."""
        self._limits = limits
        self._links = TokenBuckets(*links)
        self._held: Counter[str] = Counter()
        self._allowances: dict[str, Allowance] = {}
        self._tidy_at = MAX_KEPT

    def use(self, links: Rate, opens: Rate) -> None:
        """Holds agents to other rates from now on. What they used counts on."""
        self._links.change(*links)
        self._limits = replace(self._limits, opens_per_s=opens.per_s, opens_burst=opens.at_once)
        for allowance in self._allowances.values():
            allowance.opens.change(*opens)

    def use_of_limits(self, now: float) -> Iterator[LimitUse]:
        """Yields how much is spent of what an agent may do at once."""
        opens = most(one.opens.spent(now) for one in self._allowances.values())
        yield LimitUse("agent_opens_at_once", self._limits.opens_burst, opens)
        yield LimitUse("links_at_once", self._links.burst, self._links.most_spent(now))

    async def link(self, name: str, now: float) -> None:
        """Waits until it is an agent's turn to have another link.

        Raises:
            SessionRefused: that would take too long, or its last session ended since it flooded its link. It is told
                when to come back; a session that it has waits for that.
        """
        allowance = self._allowances.get(name)
        if allowance is not None and allowance.barred_until_s > now:
            retry_s = allowance.barred_until_s - now
            refused = SessionRefused(f"{name} has flooded its link", Code.LIMIT_EXCEEDED, retry_s, LINK_FLOODED)
        elif (wait_s := self._links.reserve(name, now, MAX_LINK_WAIT_S)) is None:
            text = f"{name} makes its link anew too often: once in {spoken_s(self._links.every_s)} is allowed"
            refused = SessionRefused(text, Code.LIMIT_EXCEEDED, self._links.wait_s(name, now), LINKS_TOO_OFTEN)
        else:
            if wait_s:
                await asyncio.sleep(wait_s)
            return
        await self._hold(name)
        raise refused

    def allowance(self, name: str, now: float, has_session: Callable[[str], bool]) -> Allowance:
        """Returns the allowance of an agent, for another session of it. `has_session` says which agents have one."""
        allowance = self._allowances.get(name)
        if allowance is None:
            if len(self._allowances) >= self._tidy_at:
                self._allowances = {name: one for name, one in self._allowances.items() if has_session(name)}
                self._tidy_at = max(MAX_KEPT, 2 * len(self._allowances))
            allowance = self._allowances[name] = Allowance(self._limits, now)
        return allowance

    # Internal

    async def _hold(self, name: str) -> None:
        """Keeps a link of an agent waiting for its refusal, unless many wait already."""
        if self._held[name] >= MAX_HELD:
            return
        self._held[name] += 1
        try:
            await asyncio.sleep(MAX_LINK_WAIT_S)
        finally:
            one_less(self._held, name)
