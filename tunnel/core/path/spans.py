"""Gathers what some acks in a row tell of the path (1 in `pacing.py`)."""

from __future__ import annotations


class Span:
    """Some acks in a row, and the least queue and round trip that they show."""

    __slots__ = ("acks", "bytes", "in_flight_bytes", "most_in_flight_bytes", "queue_s", "queues_s", "rtt_s", "start_s")

    def __init__(self, now: float) -> None:
        self.start_s = now
        self.acks = 0
        self.bytes = 0
        self.most_in_flight_bytes = 0
        self.queue_s = float("inf")
        """The least queue that a packet met, in seconds."""
        self.in_flight_bytes = 0
        """What was in flight when that packet left."""
        self.queues_s = 0.0
        self.rtt_s = float("inf")
        """The least round trip, in seconds."""

    @property
    def spread_s(self) -> float:
        """Returns how many seconds the mean queue lies above the least."""
        return self.queues_s / self.acks - self.queue_s

    def add(self, count: int, in_flight_bytes: int, queue_s: float, rtt_s: float) -> None:
        """Takes an ack: its bytes, what was in flight when its packet left, the queue and the round trip it met."""
        self.acks += 1
        self.bytes += count
        self.queues_s += queue_s
        self.rtt_s = min(self.rtt_s, rtt_s)
        self.most_in_flight_bytes = max(self.most_in_flight_bytes, in_flight_bytes)
        if queue_s <= self.queue_s:
            self.queue_s = queue_s
            self.in_flight_bytes = in_flight_bytes


class Round(Span):
    """Acks from one moment on, until all that was on its way then is acknowledged."""

    __slots__ = ("blocked", "end_seq", "follows_blocked")

    def __init__(self, now: float, end_seq: int, *, follows_blocked: bool) -> None:
        super().__init__(now)
        self.end_seq = end_seq
        """The number of the newest packet that was on its way at the start."""
        self.blocked = False
        """Whether the window has held data back: only then the round tells something of the link."""
        self.follows_blocked = follows_blocked
        """Whether the window did so in the round before."""
