"""Looks up the session that reaches an agent. It is one of this process; with several servers it may be another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol
from weakref import WeakValueDictionary

from tunnel.aio.sessions.session import TunnelSession


class Directory(Protocol):
    """The lookup that each open starts with. Its answer is a hint: whether a session lives, only the session knows."""

    def session(self, agent: str) -> TunnelSession | None:
        """Returns the session of an agent, attached or waiting for a carrier; None when it has none."""
        ...

    def sessions(self) -> Iterable[TunnelSession]:
        """Returns the sessions of all agents."""
        ...

    async def arrival(self, agent: str, within_s: float) -> TunnelSession | None:
        """Waits up to `within_s` seconds for an agent's next session, and returns it; None when none came in time."""
        ...


class MemoryDirectory:
    """The directory of the sessions of this process."""

    def __init__(self) -> None:
        self._sessions: dict[str, TunnelSession] = {}
        self._arrivals: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    # Public

    def session(self, agent: str) -> TunnelSession | None:
        """Returns an agent's session, attached or waiting for a carrier; None when it has none, or it is closed."""
        session = self._sessions.get(agent)
        return None if session is None or session.closed.done() else session

    def sessions(self) -> list[TunnelSession]:
        """Returns the sessions of all agents, without those that are closed."""
        return [session for name in self._sessions if (session := self.session(name)) is not None]

    async def arrival(self, agent: str, within_s: float) -> TunnelSession | None:
        """Waits up to `within_s` seconds for an agent's next session. Returns the one that it has then; None when it
        has none.
        """
        arrived = self._arrivals.setdefault(agent, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await arrived.wait()
        return self.session(agent)

    def put(self, agent: str, session: TunnelSession) -> None:
        """Stores a session, new or resumed, as the one of an agent, and wakes whoever waits for its arrival."""
        self._sessions[agent] = session
        if (arrival := self._arrivals.get(agent)) is not None:
            arrival.set()

    def has(self, agent: str, session: TunnelSession) -> bool:
        """Returns whether a session is the one of an agent, so that no later one took its place."""
        return self._sessions.get(agent) is session

    def remove(self, agent: str) -> TunnelSession | None:
        """Forgets an agent and returns the session that it had; None when it had none."""
        return self._sessions.pop(agent, None)
