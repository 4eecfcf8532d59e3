"""Decides who may be connected to what. It is asked for every way in; today it says yes to all who were let in."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cloud_server.opens.request import OpenRequest
from cloud_server.routing.route import Route


class Decision(NamedTuple):
    """The answer of a policy about one route."""

    allowed: bool
    rule: str
    """The name of the rule that decided."""
    reason: str = ""
    """The reason, for the one who is refused; empty when there is nothing to say but the rule's name."""


class Policy(Protocol):
    """The policy that decides about each open. It is called in the event loop, and may neither block nor raise."""

    def decide(self, request: OpenRequest, route: Route) -> Decision:
        """Returns whether a request may take a route."""
        ...


class EverybodyMayAll:
    """The policy of a server that has none: whoever has a credential may reach what the boxes allow."""

    _YES = Decision(allowed=True, rule="everybody")

    def decide(self, request: OpenRequest, route: Route) -> Decision:  # noqa: ARG002 - the protocol's
        """Returns yes; see Policy."""
        return self._YES
