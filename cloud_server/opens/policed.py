"""Leaves an open the routes that a rule allows: the first of the chain behind the door."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from cloud_server.opens.live import LiveOpen, Permitted
from cloud_server.opens.policy import Policy, demands_more, is_resolved_there
from cloud_server.rights.ask import WITH_ACCOUNT
from cloud_server.rights.engine import Decision
from cloud_server.rights.scopes import SCOPE_RULE
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.exec_terms import ExecTerms
from tunnel.core.wire.faults import OUT_OF_SCOPE


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
        request = live.request
        held = request.early_data if self._must_wait(live) else b""
        if held:
            live.request = replace(request, early_data=b"")
        stream = await self._then.open(live)
        self.check_resolved(live, stream)
        if held:
            await stream.write(held)
        return stream

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
                if live.request.verb in WITH_ACCOUNT:
                    live.terms = ExecTerms(decision.accounts, decision.record)
            else:
                reason = decision.reason
        if not allowed:
            text = f"not allowed by rule {live.rule}"
            fault = OUT_OF_SCOPE if live.rule == SCOPE_RULE else None
            raise OpenRefused(f"{text}: {reason}" if reason else text, Code.NOT_ALLOWED, fault)
        live.permitted = allowed

    def check_resolved(self, live: LiveOpen, stream: Stream) -> None:
        """Ends a stream to a name or a service that turned out to be an address that is forbidden.

        Raises:
            OpenRefused: NOT_ALLOWED, and nothing was sent.
        """
        if live.target is None:
            return
        forbidden = self.policy.forbids(live.request, Route(live.agent, live.target), stream.resolved_address)
        if forbidden is not None:
            live.rule = forbidden.rule
            there = f"is {resolved}" if (resolved := stream.resolved_address) else "is an address that was not told"
            text = f"{live.target} {there} there, not allowed by rule {forbidden.rule}"
            stream.abort(Code.NOT_ALLOWED, text)
            raise OpenRefused(text, Code.NOT_ALLOWED)

    def objection(self, live: LiveOpen, caller: Caller) -> OpenRefused | None:
        """Returns why what runs, or is being opened, is not allowed any more; None when it is.

        `caller` is who it is for, as they are now.
        """
        if caller is not live.request.caller:
            live.request = replace(live.request, caller=caller)
        if live.target is None:  # no route was tried yet: it is asked for then
            return None
        route = Route(live.agent, live.target)
        decision: Decision | None = self.policy.decide(live.request, route)
        if decision is not None and decision.allowed:
            if live.request.verb in WITH_ACCOUNT and demands_more(decision, live.terms):
                text = f"rule {decision.rule} demands more of it now than when it began"
                return OpenRefused(text, Code.STANDING_LOST)
            # What is still dialled has no address yet; it is looked at once it has.
            stream = live.stream
            decision = self.policy.forbids(live.request, route, stream.resolved_address) if stream is not None else None
        if decision is None:
            return None
        return OpenRefused(f"not allowed any more, by rule {decision.rule}", Code.STANDING_LOST)

    # Internal

    def _must_wait(self, live: LiveOpen) -> bool:
        """Whether first bytes may not go along, since only the agent can tell whether a denied address is meant."""
        unknown = any(is_resolved_there(permitted.route.target) for permitted in live.permitted)
        return unknown and self.policy.weighs_addresses(live.request)
