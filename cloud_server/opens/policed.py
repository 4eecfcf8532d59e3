"""The first of the chain behind the door: leaves an open the routes that a rule allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cloud_server.opens.live import LiveOpen, Permitted
from cloud_server.opens.policy import Decision, Policy
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.route import Route
from cloud_server.trust.caller import UNLIMITED
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import OUT_OF_SCOPE

SCOPE = "scope"
"""The name of the rule that refuses what the credential was not made for, whatever its owner may do with others."""

Labels = Callable[[str], Mapping[str, str]]
"""Returns the labels that the operator gave an agent; empty for one that is not known."""


class Opener(Protocol):
    """One of the chain. Cancelling it cancels the dial at the agent."""

    async def open(self, live: LiveOpen) -> Stream:
        """Opens the stream of an open that is in the table.

        Raises:
            OpenRefused: `code` and text say why; an answer comes within the request's deadline.
        """
        ...


class Policed:
    """Asks the policy about each route."""

    def __init__(self, policy: Policy, labels: Labels, then: Opener) -> None:
        self._labels = labels
        self.policy = policy
        """May be replaced as a whole; it holds for what is opened from then on."""
        self._then = then

    async def open(self, live: LiveOpen) -> Stream:
        """See Opener."""
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
            decision = self._in_scope(live.request, route) or self.policy.decide(live.request, route)
            live.rule = decision.rule
            if decision.allowed:
                allowed.append(Permitted(route, decision.rule))
            else:
                reason = decision.reason
        if not allowed:
            text = f"not allowed by rule {live.rule}"
            fault = OUT_OF_SCOPE if live.rule == SCOPE else None
            raise OpenRefused(f"{text}: {reason}" if reason else text, Code.NOT_ALLOWED, fault)
        live.permitted = allowed

    # Internal

    def _in_scope(self, request: OpenRequest, route: Route) -> Decision | None:
        """The refusal of what a credential was not made for; None for what the policy is to decide."""
        scope = request.caller.scope
        if scope is UNLIMITED:
            return None
        if scope.covers(request.frontend, request.verb, route.agent, self._labels(route.agent), route.target):
            return None
        return Decision(allowed=False, rule=SCOPE, reason="the credential was made for something else")
