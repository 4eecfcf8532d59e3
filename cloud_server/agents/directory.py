"""Which session reaches an agent. Here it is one of this process; with several servers it may be another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol
from weakref import WeakValueDictionary

from tunnel.aio.sessions.session import TunnelSession


class Directory(Protocol):
    """What is looked up for each open. What it says is a hint: whether a session lives, only the session knows."""

    def session(self, agent: str) -> TunnelSession | None:
        """Returns the session of an agent, attached or waiting for a carrier; None when it has none."""
        ...

    def sessions(self) -> Iterable[TunnelSession]:
        """Returns every session."""
        ...

    async def arrival(self, agent: str, within_s: float) -> TunnelSession | None:
        """Waits for an agent's next session; None when none came in time."""
        ...


class MemoryDirectory:
    """The sessions of this process."""

    def __init__(self) -> None:
        self._sessions: dict[str, TunnelSession] = {}
        self._arrivals: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    # Public

    def session(self, agent: str) -> TunnelSession | None:
        """See Directory."""
        session = self._sessions.get(agent)
        return None if session is None or session.closed.done() else session

    def sessions(self) -> list[TunnelSession]:
        """See Directory."""
        return [session for name in self._sessions if (session := self.session(name)) is not None]

    async def arrival(self, agent: str, within_s: float) -> TunnelSession | None:
        """See Directory."""
        arrived = self._arrivals.setdefault(agent, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await arrived.wait()
        return self.session(agent)

    def put(self, agent: str, session: TunnelSession) -> None:
        """Notes that a session, new or resumed, is the one of an agent."""
        self._sessions[agent] = session
        if (arrival := self._arrivals.get(agent)) is not None:
            arrival.set()

    def has(self, agent: str, session: TunnelSession) -> bool:
        """Whether a session is the one of an agent, and no later one took its place."""
        return self._sessions.get(agent) is session

    def remove(self, agent: str) -> TunnelSession | None:
        """Forgets an agent; returns the session that it had."""
        return self._sessions.pop(agent, None)
