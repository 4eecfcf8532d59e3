"""Bounds the connections of clients that have not shown yet who they are: by number, by address, and by time.

They are a pool of their own, so that they take no place of users. When it is full the newest comes in, since it may be
a user's, and the oldest goes: of the address that has the most.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.aio.process.limit_use import most


@dataclass(frozen=True, slots=True, kw_only=True)
class StrangerLimits:
    """What the strangers of one listener may take."""

    connections: int = 1024
    """The most connections at once."""
    per_address: int = 128
    """The most of one IPv4 address or IPv6 /64. It is twice what may be in the TLS handshake, so that whoever shares an
    address with somebody hostile has time for their own.
    """
    within_s: float = 10.0
    """Seconds from the accept within which a client must have shown who it is; its connection ends then. kubectl and
    curl take less than one, over a bad link a few.
    """


class Stranger:
    """One connection in the pool."""

    __slots__ = ("_pool", "_timer", "address", "end")

    def __init__(self, pool: Strangers, address: str, end: Callable[[], None], within_s: float) -> None:
        self._pool = pool
        self.address = address
        self.end = end
        self._timer = asyncio.get_running_loop().call_later(within_s, pool.late, self)

    def left(self) -> None:
        """Frees the place: the client is a user, or the connection is gone. Further calls do nothing."""
        self._timer.cancel()
        self._pool.remove(self)


class Strangers:
    """The pool of one listener."""

    def __init__(self, limits: StrangerLimits) -> None:
        self.limits = limits
        """The limits, which may be replaced: they hold for those who come."""
        self.ended = 0
        """How many were ended so far to make room, or because they took too long."""
        self._by_address: dict[str, dict[Stranger, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def most_of_one(self) -> int:
        """Returns how many are of the address with the most."""
        return most(map(len, self._by_address.values()))

    def enter(self, address: str, end: Callable[[], None]) -> Stranger:
        """Takes in a connection of an address, as `client_of` returns it. `end` must end it, and calls nothing here."""
        limits = self.limits
        if len(self._by_address.get(address, ())) >= limits.per_address:
            self._end_oldest(address)
        elif self._count >= limits.connections:
            self._end_oldest(max(self._by_address, key=self._of))
        stranger = Stranger(self, address, end, limits.within_s)
        self._by_address.setdefault(address, {})[stranger] = None
        self._count += 1
        return stranger

    # Internal - for Stranger

    def remove(self, stranger: Stranger) -> None:
        """Forgets one, if it is here."""
        there = self._by_address.get(stranger.address, {})
        if stranger in there:
            del there[stranger]
            self._count -= 1
            if not there:
                del self._by_address[stranger.address]

    def late(self, stranger: Stranger) -> None:
        """Ends one that has not shown in time who it is."""
        self.ended += 1
        stranger.left()
        stranger.end()

    # Internal

    def _of(self, address: str) -> int:
        return len(self._by_address[address])

    def _end_oldest(self, address: str) -> None:
        self.late(next(iter(self._by_address[address])))


def client_of(address: object) -> str:
    """Returns what counts as one client of a socket's peer: an IPv4 address, or an IPv6 /64, of which a client has 2^64
    addresses; empty for a unix socket.
    """
    if not isinstance(address, tuple):
        return ""
    return client_at(str(address[0]))


def client_at(host: str) -> str:
    """Returns what counts as one client of an IP address; of what is none, returns it as it is."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(ip), 64), strict=False))
    return str(ip)
