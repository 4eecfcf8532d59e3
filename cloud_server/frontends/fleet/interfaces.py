"""Says what the fleet front end needs from the rest of the server, as the narrowest types for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloud_server.agents.agents import AgentView, Change


class Agents(Protocol):
    """The agents that have joined, connected or not."""

    def names(self) -> Sequence[str]:
        """Returns the names of all agents."""
        ...

    def agent(self, name: str) -> AgentView | None:
        """Returns one agent as it is now; None when it is gone."""
        ...

    def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        """Yields the changes of agents from now on: what happened, and the agent after it.

        Raises:
            FollowerTooSlow: changes were lost.
        """
        ...


@dataclass(frozen=True, slots=True)
class User:
    """The user that is asking."""

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)
