"""Holds each user to a pace of opens: a little more is waited for, much more is refused.

Those whom nobody asks who they are have no pace: forwards, and the unix sockets of this host, which are the operator's
own. Agents are held to theirs by their sessions, before anything of an open is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from cloud_server.trust.caller import Caller
from tunnel.aio.process.limit_use import LimitUse
from tunnel.core.path.rate import Rate, TokenBuckets
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import OPENS_TOO_FAST
from tunnel.core.wire.principal import PrincipalKind

OPENS = Rate(500.0, 2000)
"""The opens of one user. A Prometheus that asks each of 10,000 boxes twice a minute opens 333 a second."""
MAX_WAIT_S = 2.0
"""The longest that an open waits for its turn; with it a burst may be half as large again. Beyond that its client is
better told: it may ask less, and whoever waits takes memory.
"""


class OpenPace:
    """The pace of all users. Whoever acts as another user pays for it themselves."""

    def __init__(self, opens: Rate = OPENS) -> None:
        self._users = TokenBuckets(*opens)

    def use(self, opens: Rate) -> None:
        """Holds users to another rate from now on. What they used counts on."""
        self._users.change(*opens)

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much is spent of what a user may open at once."""
        now_s = asyncio.get_running_loop().time()
        yield LimitUse("user_opens_at_once", self._users.burst, self._users.most_spent(now_s))

    async def turn(self, caller: Caller, deadline_s: float) -> None:
        """Waits until it is this caller's turn to open something, for MAX_WAIT_S and half of `deadline_s` at most.

        Raises:
            OpenRefused: that would take longer.
        """
        who = caller.by or caller.principal
        if who.kind is not PrincipalKind.USER:
            return
        now_s = asyncio.get_running_loop().time()
        wait_s = self._users.reserve(who.name, now_s, min(MAX_WAIT_S, deadline_s / 2))
        if wait_s is None:
            text = f"{who.name} opens connections too fast: {1 / self._users.every_s:g} a second are allowed for long"
            raise OpenRefused(text, Code.LIMIT_EXCEEDED, OPENS_TOO_FAST)
        if wait_s:
            await asyncio.sleep(wait_s)
