"""The book of connections without a call: since when each waits, and which are to go. It does no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.peer_key import PeerKey
from tunnel.aio.carriers.places import Places
from tunnel.aio.process.limit_use import most

__all__ = ["ABOVE_LIMIT", "REFUSED", "REFUSED_AT_ONCE", "TOO_LATE", "Waiting"]

TOO_LATE = "made no call in time"
ABOVE_LIMIT = "too many without a call"
REFUSED = "its call was refused"
REFUSED_S = 1.0
"""Seconds from the refusal of a call to the end of its connection, if it has no other: the answer goes out meanwhile. A
box hangs up by itself; what others send on after a refusal was 0.6 MB for each connection.
"""
REFUSED_AT_ONCE = 8
"""How many may stay for so long. Of more, the first go sooner: they send on, and 30 a second took 90 MB
beside a busy processor, and take half of it so.
"""
REFUSED_LEAST_S = 0.25
"""Seconds that each of those has: the answer is written in the same turn. Those that are far, and refused together with
many, are told when they come again. With 0.1, connections were cut amid what they sent, of which gRPC kept 0.3 MB each.
"""
HANDSHAKE_S = 2.0
"""Seconds in which a box's handshake is over, unless thousands come back at once: whoever waits for longer goes first
when there are too many.
"""
PATIENCE = 2.0
"""Whoever has waited for so many times as long as those do who make a call now is late, too: where a server has more
handshakes than it has time for, boxes wait for seconds, and those that have waited longest are nearly done.
"""
_LEARNED = 1 / 16
"""The share of the newest in the time that those wait who make a call: one box that takes its time changes little."""
_FORGOTTEN_S = 2.0
"""Seconds in which that time halves while nobody makes a call: a box alone, with 30 links a minute, cannot keep it up
so that strangers may wait for longer.
"""


@dataclass(frozen=True, slots=True)
class Victim:
    """A connection that is to be closed, and why."""

    peer: PeerKey
    reason: str


class Waiting:
    """Which connections have no call, as one look after the other finds them."""

    def __init__(self, limits: CarrierLimits, places: Places | None = None) -> None:
        """Begins without any. From an address of `places` as many more may come as there are boxes; None for none."""
        self.limits = limits
        self._places = places or Places()
        self._since_s: dict[PeerKey, float] = {}
        self._calls: Counter[PeerKey] = Counter()
        self._ended_s: dict[PeerKey, float] = {}
        """When the last call of a connection ended, for those that ended since the last look."""
        self._refused_s: dict[PeerKey, float] = {}
        """When a call of a connection was first refused."""
        self._waited_s = 0.0
        """How many seconds those waited who made a call lately, and when that was."""
        self._waited_at_s = 0.0
        self._going: set[PeerKey] = set()
        """Those that were to be closed, until a look does not find them any more."""

    def __len__(self) -> int:
        return len(self._since_s)

    def most_of_one(self) -> int:
        """Returns how many wait of the address with the most."""
        return most(Counter(peer.client for peer in self._since_s).values())

    def has_call(self, peer: PeerKey) -> bool:
        """Returns whether a call runs on the connection of this peer."""
        return peer in self._calls

    def began(self, peer: PeerKey, now_s: float) -> None:
        """Notes that a call runs on the connection of this peer, which was authorised."""
        self._calls[peer] += 1
        since_s = self._since_s.pop(peer, None)
        if since_s is not None:
            usual_s = self._usual_s(now_s)
            self._waited_s = usual_s + (now_s - since_s - usual_s) * _LEARNED
            self._waited_at_s = now_s
        self._ended_s.pop(peer, None)

    def ended(self, peer: PeerKey, now_s: float) -> None:
        """Notes that a call is over. Its connection may go, too; the next look shows it."""
        self._calls[peer] -= 1
        if self._calls[peer] <= 0:
            del self._calls[peer]
            self._ended_s[peer] = now_s

    def refused(self, peer: PeerKey, now_s: float) -> None:
        """Notes that a call was refused on the connection of this peer."""
        self._refused_s.setdefault(peer, now_s)

    def look(self, now_s: float, there: Iterable[PeerKey]) -> list[Victim]:
        """Takes all connections that are there, and returns those that are to be closed: each once."""
        known = self._since_s
        present = set(there) - self._calls.keys()
        self._going &= present
        self._since_s = {
            peer: known.get(peer, self._ended_s.get(peer, now_s)) for peer in present if peer not in self._going
        }
        self._ended_s.clear()
        late = [peer for peer, since_s in self._since_s.items() if now_s - since_s >= self.limits.call_timeout_s]
        victims = [Victim(peer, TOO_LATE) for peer in late]
        self._refused_s = {
            peer: at_s for peer, at_s in self._refused_s.items() if peer in present or peer in self._calls
        }
        refused = self._refused_long_ago(self._since_s.keys() - set(late), now_s)
        victims += [Victim(peer, REFUSED) for peer in refused]
        late += refused
        for peer in late:
            del self._since_s[peer]
        for peer in self._above_limits(now_s):
            del self._since_s[peer]
            victims.append(Victim(peer, ABOVE_LIMIT))
        self._going.update(victim.peer for victim in victims)
        return victims

    # Internal

    def _usual_s(self, now_s: float) -> float:
        """Returns how many seconds those wait, as a rule, who make a call now."""
        return float(self._waited_s * 0.5 ** ((now_s - self._waited_at_s) / _FORGOTTEN_S))

    def _refused_long_ago(self, peers: Iterable[PeerKey], now_s: float) -> list[PeerKey]:
        """Returns those of the peers that were refused, and have had the time to hear of it."""
        at_s = self._refused_s
        oldest_first = sorted((peer for peer in peers if peer in at_s), key=at_s.__getitem__)
        more = len(oldest_first) - REFUSED_AT_ONCE
        return [
            peer
            for place, peer in enumerate(oldest_first)
            if now_s - at_s[peer] >= (REFUSED_LEAST_S if place < more else REFUSED_S)
        ]

    def _above_limits(self, now_s: float) -> list[PeerKey]:
        """Returns which must go so that each address, and all together, are within their limits.

        Those whose handshake takes too long go first, the oldest of them; then the youngest, as of boxes that come back
        at once the oldest are the next to be done.
        """
        limits = self.limits
        boxes_at = self._places.boxes_at
        # Those beyond the boxes that are at home there.
        per_address = {
            client: more
            for client, count in Counter(peer.client for peer in self._since_s).items()
            if (more := count - boxes_at(client)) > 0
        }
        above = sum(per_address.values()) - limits.waiting
        if above <= 0 and max(per_address.values(), default=0) <= limits.waiting_per_address:
            return []
        by_age = sorted(self._since_s, key=self._since_s.__getitem__)
        patience_s = max(HANDSHAKE_S, PATIENCE * self._usual_s(now_s))
        slow = [peer for peer in by_age if now_s - self._since_s[peer] >= patience_s]
        order = [*slow, *reversed(by_age[len(slow) :])]
        going: list[PeerKey] = []
        staying: list[PeerKey] = []
        for peer in order:
            if per_address.get(peer.client, 0) > limits.waiting_per_address:
                per_address[peer.client] -= 1
                going.append(peer)
            elif peer.client in per_address:
                staying.append(peer)
        above -= len(going)
        for peer in staying:
            if above <= 0:
                break
            if per_address[peer.client] > 0:
                per_address[peer.client] -= 1
                going.append(peer)
                above -= 1
        return going
