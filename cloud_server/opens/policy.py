"""Who may be connected to what. Asked for every way in; today it says yes to whoever was let in at all."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cloud_server.opens.request import OpenRequest
from cloud_server.routing.route import Route


class Decision(NamedTuple):
    """What a policy says of one route, and by which rule."""

    allowed: bool
    rule: str
    """The name of the rule that decided."""
    reason: str = ""
    """For the one who is refused; empty: nothing but the rule's name."""


class Policy(Protocol):
    """Decides. Called in the event loop for each open; may neither block nor raise."""

    def decide(self, request: OpenRequest, route: Route) -> Decision:
        """Returns whether a request may take a route."""
        ...


class EverybodyMayAll:
    """The policy of a server that has none: whoever has a credential may reach what the boxes allow."""

    _YES = Decision(allowed=True, rule="everybody")

    def decide(self, request: OpenRequest, route: Route) -> Decision:  # noqa: ARG002 - the protocol's
        """See Policy."""
        return self._YES
