"""Measures how much of a link's delay is a queue of our making, by the way there alone: the way back is the peer's.

Each ack says when the newest packet it covers arrived, on the peer's clock. That minus our time of sending is the way
there, but for an unknown offset of the clocks; above the least ever seen it is the queue (LEDBAT, RFC 6817, measures in
the same way). Round trips give the scale and a bound: no queue is longer than the round trip has grown.
"""

from __future__ import annotations

MAX_ACK_DELAY_S = 0.025
"""An ack delay of more seconds than this is not believed: a peer could hide any queue behind it."""
SEEN_S = 0.001
"""How close to the least, in seconds, a way there must be to count as the empty path: jitter keeps the least from being
seen again to the microsecond.
"""
_WRAP = 1 << 32


class PathDelay:
    """The empty path's round trip and the queue of one carrier's path."""

    __slots__ = ("_base_forward_us", "base_rtt_s", "base_seen_s", "queue_s", "rtt_s", "srtt_s")

    def __init__(self) -> None:
        self.base_rtt_s = 0.0
        """The least round trip seen; 0.0 before the first."""
        self.base_seen_s = 0.0
        """When the empty path was last seen."""
        self.srtt_s = 0.0
        self.rtt_s = 0.0
        """The newest round trip, without what the ack waited."""
        self.queue_s = 0.0
        """The queue at the newest sample."""
        self._base_forward_us: int | None = None

    def sample(self, rtt_s: float, ack_delay_s: float, forward_us: int | None, now: float) -> None:
        """Takes a round trip and what its ack waited, in seconds.

        `forward_us` is the arrival on the peer's clock minus the sending on ours, modulo 2^32; None when that is not
        known.
        """
        self.rtt_s = rtt_s = max(rtt_s - min(ack_delay_s, MAX_ACK_DELAY_S), 1e-6)
        self.srtt_s = rtt_s if self.srtt_s == 0.0 else self.srtt_s + (rtt_s - self.srtt_s) / 8
        if self.base_rtt_s == 0.0 or rtt_s < self.base_rtt_s:
            self.base_rtt_s = rtt_s
        if forward_us is None:
            return
        if self._base_forward_us is None:
            self._base_forward_us = forward_us
        ahead_us = (forward_us - self._base_forward_us + _WRAP // 2) % _WRAP - _WRAP // 2
        if ahead_us < 0:
            self._base_forward_us = forward_us
        forward_s = max(ahead_us, 0) / 1e6
        if forward_s <= SEEN_S:
            self.base_seen_s = now
        self.queue_s = min(forward_s, rtt_s - self.base_rtt_s)

    def rebase(self, foreign_s: float, rtt_s: float, now: float) -> None:
        """Moves `foreign_s` of the queue, which is not ours, into the empty path, whose round trip is now `rtt_s`."""
        self.base_rtt_s = max(self.base_rtt_s, rtt_s)
        self._base_forward_us = (self._base_forward_us or 0) + round(foreign_s * 1e6)
        self.base_seen_s = now
