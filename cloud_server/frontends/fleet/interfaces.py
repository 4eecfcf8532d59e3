"""What the fleet front end needs from the rest of the server, as the narrowest types that say it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloud_server.registry import AgentView, Change
from tunnel.aio.duplex import Duplex
from tunnel.core.target import Target


class Registry(Protocol):
    """The agents that have joined, connected or not."""

    def agents(self) -> Sequence[AgentView]:
        """All of them."""
        ...

    def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        """Their changes from now on: what happened, and the agent after it.

        Raises:
            SubscriberTooSlow: changes were lost.
        """
        ...


class Opener(Protocol):
    """Opens streams to agents."""

    async def open(
        self, agent: str, target: Target, *, principal: str, frontend: str, deadline_s: float = 10.0
    ) -> Duplex:
        """Open a stream.

        Raises:
            OpenRefused: it could not be opened.
        """
        ...


class ClientConn(Duplex, Protocol):
    """A client's connection over TLS."""

    @property
    def peer(self) -> str:
        """`ip:port`, for logs."""
        ...

    @property
    def tls_peer_spiffe(self) -> str | None:
        """The URI of its verified client certificate."""
        ...


@dataclass(frozen=True, slots=True)
class User:
    """Who is asking."""

    name: str
    groups: tuple[str, ...] = ()


Authenticate = Callable[[str | None, str | None], User | None]
"""Tells who is asking from the URI of a verified client certificate and a bearer token; None is anonymous.

It must not block: tokens are compared in memory.
"""
