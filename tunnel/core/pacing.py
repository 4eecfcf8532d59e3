"""How much may be un-acked on the carrier: the bandwidth-delay product and a few milliseconds, found from acks alone.

gRPC and the kernel swallow megabytes ahead of a slow link, in front of every keystroke. So the bytes un-acked are held
to `window`, which follows our own queue (`delay.py`): FAST TCP's update (C. Jin, D. Wei, S. Low, "FAST TCP: Motivation,
Architecture, Algorithms, Performance", INFOCOM 2004)

    window <- window * (base + target) / (base + queue)

once a round trip, whose fixed point is a queue of `target` seconds whatever the rate. Five additions:

- it starts as TCP does, growing by what is acknowledged, until a few acks in a row show a queue (as HyStart does);
- later it grows faster the longer no queue is seen;
- it moves only in rounds in which it held data back: a sender with nothing to say learns nothing;
- every `BASE_AGE_S` the window is halved for one round, to see the empty path again (as ProbeRTT of BBR does);
- a delay that does not fall though less was twice put in flight is the path's or a neighbour's, not ours: it becomes
  the base.
"""

from __future__ import annotations

from typing import NamedTuple

from tunnel.core.delay import PathDelay

INITIAL_WINDOW_BYTES = 16 * 1024
"""As TCP's first window (RFC 6928, 10 segments)."""
MIN_PACKET_BYTES = 1400
"""Frames are not cut below a segment: 11 ms at 1 Mbit/s."""
MIN_WINDOW_BYTES = 4 * MIN_PACKET_BYTES
PACKET_TIME_S = 0.004
"""A packet should not take the link for longer, so that what is interactive gets its turn."""
TARGET_BASE_S = 0.002
"""Queue that covers delayed acks; two packets' time is added, so that the link always has the next one."""
BASE_AGE_S = 10.0
START_ENDS_AFTER = 4
"""Acks in a row that show a queue; one alone may be the jitter of a radio link."""
REAL_CUT = 0.8
"""In flight must have shrunk to so much before a delay that stayed is held against the path."""


class PacingStatistics(NamedTuple):
    """Figures of the pacer."""

    window_bytes: int
    base_rtt_s: float
    rtt_s: float
    rate_bytes_per_s: float


class _Cut(NamedTuple):
    """What was so when less was last put in flight since the queue was too long."""

    rtt_s: float
    in_flight_bytes: float
    first_window_bytes: float
    """The window before the cuts that did not help."""
    vain: int
    """Cuts that did not help."""


class Pacer:
    """The window of one carrier. A new carrier may be another path: it gets a new Pacer."""

    def __init__(self, max_window_bytes: int, max_packet_bytes: int) -> None:
        self._max_window = float(max_window_bytes)
        self._max_packet = max_packet_bytes
        self._window = float(min(INITIAL_WINDOW_BYTES, max_window_bytes))
        self._delay = PathDelay()
        self._rate = 0.0
        self._starting = True
        self._queued_acks = 0
        self._calm_rounds = 0
        self._cut: _Cut | None = None
        self._hold_rounds = 0
        self._probe_window: float | None = None
        # The round that runs: it ends when all that was on its way at its start is acknowledged.
        self._round_end_seq = 0
        self._round_start_s: float | None = None
        self._round_bytes = 0
        self._round_in_flight = 0
        self._blocked = False
        self._was_blocked = False

    @property
    def window_bytes(self) -> int:
        """What may be un-acked."""
        return int(self._window)

    @property
    def rtt_s(self) -> float:
        """Smoothed round trip, with our own queue in it; 0.0 before the first ack."""
        return self._delay.srtt_s

    @property
    def packet_bytes(self) -> int:
        """How large a packet should be at the rate of this link."""
        by_rate = self._rate_now() * PACKET_TIME_S
        return int(max(MIN_PACKET_BYTES, min(by_rate, self._window / 4, self._max_packet)))

    def statistics(self) -> PacingStatistics:
        """Figures as they stand."""
        return PacingStatistics(self.window_bytes, self._delay.base_rtt_s or 0.0, self.rtt_s, self._rate_now())

    def blocked(self) -> None:
        """The window held data back: this round tells something of the link."""
        self._blocked = True

    def sample(self, rtt_s: float, ack_delay_s: float, forward_us: int | None, now: float) -> None:
        """Take a round trip, of a packet or a ping; see `PathDelay.sample`."""
        self._delay.sample(rtt_s, ack_delay_s, forward_us, now)

    def acknowledged(self, seq: int, count: int, in_flight_bytes: int, last_sent_seq: int, now: float) -> None:
        """Take an ack of `count` bytes up to `seq`, of what was in flight; `last_sent_seq` is the newest packet on
        its way.
        """
        if self._round_start_s is None:
            self._start_round(last_sent_seq, now)
            return
        self._round_bytes += count
        self._round_in_flight = max(self._round_in_flight, in_flight_bytes)
        if self._starting and (self._blocked or self._was_blocked):
            self._grow_at_start(count, in_flight_bytes)
        if seq >= self._round_end_seq:
            self._end_round(now)
            self._start_round(last_sent_seq, now)

    # Internal

    def _rate_now(self) -> float:
        return self._rate or self._window / max(self.rtt_s, 0.001)

    def _target(self) -> float:
        return TARGET_BASE_S + 2 * self.packet_bytes / self._rate_now()

    def _start_round(self, end_seq: int, now: float) -> None:
        self._round_end_seq = end_seq
        self._round_start_s = now
        self._round_bytes = 0
        self._round_in_flight = 0
        self._delay.start_round()
        self._was_blocked = self._blocked
        self._blocked = False

    def _grow_at_start(self, count: int, in_flight: int) -> None:
        queue, target = self._delay.queue_s, self._target()
        self._queued_acks = self._queued_acks + 1 if queue > target else 0
        if self._queued_acks < START_ENDS_AFTER:
            self._set_window(self._window + count)
            return
        base = self._delay.base_rtt_s or 0.0
        self._end_start()
        self._set_window(in_flight * (base + target) / (base + queue))
        self._hold_rounds = 1

    def _end_start(self) -> None:
        self._starting = False
        self._queued_acks = 0

    def _end_round(self, now: float) -> None:
        queue, base = self._delay.round_queue_s, self._delay.base_rtt_s
        if queue is None or base is None or self._round_start_s is None:
            return
        rate = self._round_bytes / max(now - self._round_start_s, 1e-6)
        if self._blocked and self._rate > 0.0:
            self._rate += (rate - self._rate) / 4
        elif rate > self._rate:
            self._rate = rate
        if self._hold_rounds > 0:
            # What is acknowledged now was sent before the last change: it cannot show what the change did.
            self._hold_rounds -= 1
        elif self._probe_window is not None:
            self._end_probe(self._probe_window, now)
        else:
            self._move(queue, base, now)

    def _move(self, queue: float, base: float, now: float) -> None:
        target = self._target()
        if queue <= target:
            self._cut = None
        elif self._in_vain(base + queue):
            self._delay.rebase(now)
            self._starting = True
            return
        if queue > 2 * target:
            self._shrink(queue, base, target)
        elif self._blocked and not self._starting:
            self._steer(queue, base, target)
        if self._blocked and now - self._delay.base_seen_s > BASE_AGE_S:
            self._probe_window = self._window
            self._set_window(self._window / 2)
            self._hold_rounds = 1

    def _steer(self, queue: float, base: float, target: float) -> None:
        if queue < target / 4:
            gain = 1.0 + min(1.0, 0.125 * 2.0**self._calm_rounds)
            self._calm_rounds += 1
        else:
            gain = 1.0 + ((base + target) / (base + queue) - 1.0) / 2
            self._calm_rounds = 0
        self._set_window(self._window * gain)

    def _shrink(self, queue: float, base: float, target: float) -> None:
        """The queue is far too long: put less in flight, at once."""
        self._end_start()
        self._calm_rounds = 0
        in_flight = min(self._window, float(self._round_in_flight))
        if in_flight > MIN_WINDOW_BYTES:
            self._set_window(in_flight * max(0.5, (base + target) / (base + queue)))
            self._hold_rounds = 1

    def _in_vain(self, rtt: float) -> bool:
        """Whether less in flight did not help, twice: a queue of ours shrinks as what is in flight does. The window is
        then again what it was.
        """
        in_flight = min(self._window, float(self._round_in_flight))
        last = self._cut
        if last is None:
            self._cut = _Cut(rtt, in_flight, self._window, 0)
            return False
        share = in_flight / last.in_flight_bytes
        if share > REAL_CUT:
            return False
        if rtt <= last.rtt_s * (1.0 + share) / 2:
            self._cut = _Cut(rtt, in_flight, self._window, 0)
            return False
        if last.vain == 0:
            self._cut = _Cut(rtt, in_flight, last.first_window_bytes, 1)
            return False
        self._set_window(last.first_window_bytes)
        self._cut = None
        return True

    def _end_probe(self, window: float, now: float) -> None:
        self._delay.rebase(now)
        self._set_window(window)
        self._probe_window = None
        self._hold_rounds = 1

    def _set_window(self, window: float) -> None:
        self._window = min(max(window, float(MIN_WINDOW_BYTES)), self._max_window)
