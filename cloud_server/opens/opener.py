"""What front ends need of the registry: a stream to something at an agent."""

from __future__ import annotations

from typing import Protocol

from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.target import Target


class Opener(Protocol):
    """Opens streams; cancelling it cancels the dial at the agent."""

    async def open(
        self,
        agent: str,
        target: Target,
        *,
        principal: str,
        frontend: str,
        deadline_s: float = 10.0,
        early_data: bytes = b"",
    ) -> Stream:
        """Open a stream.

        `early_data` are its first bytes, up to MAX_EARLY_BYTES: they spare a round trip. Refused, it never had any.

        Raises:
            OpenRefused: `code` and text say why; an answer comes within `deadline_s`.
        """
        ...
