"""Leaves an open the routes that a rule allows: the first of the chain behind the door."""

from __future__ import annotations

from typing import Protocol

from cloud_server.opens.live import LiveOpen, Permitted
from cloud_server.opens.policy import Policy
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused


class Opener(Protocol):
    """A link of the chain that opens streams. Cancelling `open` cancels the dial at the agent."""

    async def open(self, live: LiveOpen) -> Stream:
        """Opens the stream of an open that is in the table.

        Raises:
            OpenRefused: `code` and text say why; an answer comes within the request's deadline.
        """
        ...


class Policed:
    """The opener that asks the policy about each route."""

    def __init__(self, policy: Policy, then: Opener) -> None:
        self.policy = policy
        """The policy in use. It may be replaced as a whole, and holds for what is opened from then on."""
        self._then = then

    async def open(self, live: LiveOpen) -> Stream:
        """Takes away the routes that are not allowed, and opens the stream over the others; see Opener."""
        self.check(live)
        return await self._then.open(live)

    def check(self, live: LiveOpen) -> None:
        """Takes away the routes that are not allowed.

        Raises:
            OpenRefused: NOT_ALLOWED, there is none left.
        """
        allowed: list[Permitted] = []
        reason = ""
        for route, _ in live.permitted:
            live.agent, live.target = route
            decision = self.policy.decide(live.request, route)
            live.rule = decision.rule
            if decision.allowed:
                allowed.append(Permitted(route, decision.rule))
            else:
                reason = decision.reason
        if not allowed:
            text = f"not allowed by rule {live.rule}"
            raise OpenRefused(f"{text}: {reason}" if reason else text, Code.NOT_ALLOWED)
        live.permitted = allowed
