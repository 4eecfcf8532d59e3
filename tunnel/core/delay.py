"""What of a link's delay is a queue of our own making: told by the way there alone, since the way back is the peer's.

Each ack says when the newest packet it covers arrived, on the peer's clock. That minus our time of sending is the way
there, but for an unknown offset of the clocks; above the least ever seen it is the queue (LEDBAT, RFC 6817, measures in
the same way). Round trips give the scale and a bound: no queue is longer than the round trip has grown.
"""

from __future__ import annotations

MAX_ACK_DELAY_S = 0.025
"""An ack delay beyond this is not believed: a peer could hide any queue behind it."""
SPREAD_SAMPLES = 8
"""A round of fewer says nothing of jitter."""
MAX_JITTER_SHARE = 0.1
"""So much of the least round trip is left to jitter at most. More would let queues stand when both directions are full;
with none, 20 ms of jitter on a 50 ms path cost three quarters of its rate.
"""
_WRAP = 1 << 32


class PathDelay:
    """Base and queue of one carrier's path, and the least of each in the round that runs."""

    def __init__(self) -> None:
        self.base_rtt_s: float | None = None
        """The least round trip seen; None before the first."""
        self.base_seen_s = 0.0
        """When the empty path was last seen."""
        self.srtt_s = 0.0
        self._queue_s = 0.0
        self._base_forward_us: int | None = None
        self._round_rtt_s: float | None = None
        self._round_forward_s = 0.0
        self._round_queues_s = 0.0
        self._round_samples = 0
        self._jitter_s: float | None = None
        """The least queue of any round: what the path does by itself. Samples are less now and then, by luck."""

    def sample(self, rtt_s: float, ack_delay_s: float, forward_us: int | None, now: float) -> None:
        """Take a round trip. `forward_us`: arrival on the peer's clock minus sending on ours, modulo 2^32; None when
        that is not known.
        """
        rtt_s = max(rtt_s - min(ack_delay_s, MAX_ACK_DELAY_S), 1e-6)
        self.srtt_s = rtt_s if self.srtt_s == 0.0 else self.srtt_s + (rtt_s - self.srtt_s) / 8
        if self.base_rtt_s is None or rtt_s <= self.base_rtt_s:
            self.base_rtt_s = rtt_s
        if forward_us is None:
            return
        if self._base_forward_us is None:
            self._base_forward_us = forward_us
        ahead_us = (forward_us - self._base_forward_us + _WRAP // 2) % _WRAP - _WRAP // 2
        if ahead_us <= 0:
            self._base_forward_us = forward_us
            self._round_forward_s -= ahead_us / 1e6
            self.base_seen_s = now
        forward_s = max(ahead_us, 0) / 1e6
        self._queue_s = min(forward_s, rtt_s - self.base_rtt_s)
        self._round_queues_s += self._queue_s
        self._round_samples += 1
        if self._round_rtt_s is None:
            self._round_rtt_s, self._round_forward_s = rtt_s, forward_s
        else:
            self._round_rtt_s = min(self._round_rtt_s, rtt_s)
            self._round_forward_s = min(self._round_forward_s, forward_s)

    def start_round(self) -> None:
        """Forget what the last round showed, but for the least spread seen."""
        if self._round_rtt_s is not None and self.base_rtt_s is not None:
            seen_s = self._seen_s(self.base_rtt_s)
            if self._jitter_s is not None:
                self._jitter_s = min(self._jitter_s, seen_s)
            elif self._round_samples >= SPREAD_SAMPLES:
                self._jitter_s = seen_s
        self._round_rtt_s = None
        self._round_queues_s = 0.0
        self._round_samples = 0

    @property
    def round_queue_s(self) -> float | None:
        """The queue of this round, None without a sample: its least and half of how far the mean lies above that. The
        least alone misses a queue that comes and goes, as it does when both directions are full and acks come in
        clumps. What the mean never falls below is the path's jitter, and left out.
        """
        if self._round_rtt_s is None or self.base_rtt_s is None:
            return None
        return max(0.0, self._seen_s(self.base_rtt_s) - self._allowed_s(self.base_rtt_s))

    @property
    def queue_s(self) -> float:
        """The queue at the newest sample, less what jitter explains."""
        return max(0.0, self._queue_s - 2 * self._allowed_s(self.base_rtt_s or 0.0))

    def rebase(self, now: float) -> None:
        """Take the least of this round as the empty path."""
        if self._round_rtt_s is not None and self._base_forward_us is not None and self.base_rtt_s is not None:
            self._jitter_s = self._round_spread_s(self.base_rtt_s)
            self._round_queues_s -= self._least_s(self.base_rtt_s) * self._round_samples
            self.base_rtt_s = self._round_rtt_s
            self._base_forward_us += round(self._round_forward_s * 1e6)
            self.base_seen_s = now
            self._round_forward_s = 0.0

    # Internal

    def _least_s(self, base_rtt_s: float) -> float:
        assert self._round_rtt_s is not None
        return min(self._round_forward_s, self._round_rtt_s - base_rtt_s)

    def _allowed_s(self, base_rtt_s: float) -> float:
        return min(self._jitter_s or 0.0, base_rtt_s * MAX_JITTER_SHARE)

    def _seen_s(self, base_rtt_s: float) -> float:
        return self._least_s(base_rtt_s) + self._round_spread_s(base_rtt_s)

    def _round_spread_s(self, base_rtt_s: float) -> float:
        return max(0.0, self._round_queues_s / self._round_samples - self._least_s(base_rtt_s)) / 2
