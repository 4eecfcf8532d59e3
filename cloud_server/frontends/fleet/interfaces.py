"""What the fleet front end needs from the rest of the server, as the narrowest types that say it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloud_server.agents.registry import AgentView, Change


class Registry(Protocol):
    """The agents that have joined, connected or not."""

    def names(self) -> Sequence[str]:
        """All of them."""
        ...

    def agent(self, name: str) -> AgentView | None:
        """One of them as it is now; None when it is gone."""
        ...

    def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        """Their changes from now on: what happened, and the agent after it.

        Raises:
            SubscriberTooSlow: changes were lost.
        """
        ...


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking."""

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)


Authenticate = Callable[[str | None, str | None], str | None]
"""From the URI of a client certificate and a bearer token to the user's name; None for nobody we know."""
