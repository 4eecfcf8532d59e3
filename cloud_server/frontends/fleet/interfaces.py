"""What the fleet front end needs from the rest of the server, as the narrowest types that say it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from cloud_server.agents.agents import AgentView, Change


class Agents(Protocol):
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
            FollowerTooSlow: changes were lost.
        """
        ...
