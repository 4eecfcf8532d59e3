"""Counts what the box carried so far, by what it was for: streams, refusals, and bytes, also of running streams."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code

TCP = "tcp"
"""The name that streams to a host and port are counted under; services are counted under their names, which are the
box's own configuration's."""
LISTEN = "listen"
"""The name that connections of each `[[listen]]` are counted under."""
OTHER = "other"
"""The name that all refused requests for services are counted under: a peer could make up any number of names."""


@dataclass(slots=True)
class _Bytes:
    to_agent: int = 0
    from_agent: int = 0


@dataclass(slots=True)
class Traffic:
    """The counters of one process."""

    opened: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, Code]] = field(default_factory=Counter)
    _ended: dict[str, _Bytes] = field(default_factory=lambda: defaultdict(_Bytes))
    _running: dict[Stream, str] = field(default_factory=dict)

    def began(self, service: str, stream: Stream) -> None:
        """Counts a stream that is up, as one that runs."""
        self.opened[service] += 1
        self._running[stream] = service

    def ended(self, stream: Stream) -> None:
        """Counts a stream's bytes for good, and no longer as one that runs."""
        service = self._running.pop(stream)
        to_agent, from_agent = bytes_of(stream)
        self._ended[service].to_agent += to_agent
        self._ended[service].from_agent += from_agent

    def running(self) -> Counter[str]:
        """Returns how many streams of each service run now."""
        return Counter(self._running.values())

    def bytes(self) -> dict[str, tuple[int, int]]:
        """Returns the bytes to the box and from it, by service."""
        totals = {name: _Bytes(done.to_agent, done.from_agent) for name, done in self._ended.items()}
        for stream, service in self._running.items():
            to_agent, from_agent = bytes_of(stream)
            total = totals.setdefault(service, _Bytes())
            total.to_agent += to_agent
            total.from_agent += from_agent
        return {name: (total.to_agent, total.from_agent) for name, total in totals.items()}


def bytes_of(stream: Stream) -> tuple[int, int]:
    """Returns the bytes that a stream brought to the box, and those that it took from there, whoever opened it."""
    counts = stream.statistics()
    return counts.bytes_received, counts.bytes_sent
