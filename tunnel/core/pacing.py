"""How much may be un-acked on the carrier: the bandwidth-delay product and a few milliseconds, found from acks alone.

gRPC and the kernel swallow megabytes ahead of a slow link, in front of every keystroke. So the bytes un-acked are held
to `window`, which follows the delay: FAST TCP's update (C. Jin, D. Wei, S. Low, "FAST TCP: Motivation, Architecture,
Algorithms, Performance", INFOCOM 2004)

    window <- window * (base_rtt + target) / rtt

once a round trip, whose fixed point is a queue of `target` seconds whatever the rate. Four additions:

- while no queue is seen the window doubles (slow start), and later grows faster the longer none is seen;
- it moves only in rounds in which it held data back: a sender with nothing to say learns nothing;
- every `BASE_AGE_S` the window is halved for one round, to see the empty path again (as ProbeRTT of BBR does);
- a delay that does not fall though the window was cut twice is the path's or a neighbour's, not ours: it becomes the
base.
"""

from __future__ import annotations

from typing import NamedTuple

INITIAL_WINDOW_BYTES = 32 * 1024
"""Much as TCP's first window (RFC 6928, 10 segments): 50 ms of a 5 Mbit/s link."""
MIN_PACKET_BYTES = 1400
"""Frames are not cut below a segment: 11 ms at 1 Mbit/s."""
MIN_WINDOW_BYTES = 4 * MIN_PACKET_BYTES
PACKET_TIME_S = 0.004
"""A packet should not take the link for longer, so that what is interactive gets its turn."""
TARGET_BASE_S = 0.002
"""Queue that covers delayed acks; two packets' time is added, so that the link always has the next one."""
BASE_AGE_S = 10.0
UNMOVED = 0.85
"""After a cut the delay should fall by at least as much as this; otherwise the queue is not ours."""
MAX_ACK_DELAY_S = 0.025
"""An ack delay beyond this is not believed: a peer could hide any queue behind it."""


class PacingStatistics(NamedTuple):
    """Figures of the pacer."""

    window_bytes: int
    base_rtt_s: float
    rtt_s: float
    rate_bytes_per_s: float


class Pacer:
    """The window of one carrier. A new carrier may be another path: it gets a new Pacer."""

    def __init__(self, max_window_bytes: int, max_packet_bytes: int) -> None:
        self._max_window = float(max_window_bytes)
        self._max_packet = max_packet_bytes
        self._window = float(min(INITIAL_WINDOW_BYTES, max_window_bytes))
        self._base_rtt: float | None = None
        self._base_s = 0.0
        self._srtt = 0.0
        self._rate = 0.0
        self._slow_start = True
        self._calm_rounds = 0
        self._cut_rtt = 0.0
        self._unmoved_cuts = 0
        self._hold_rounds = 0
        self._probe_window: float | None = None
        # The round that runs: it ends when a packet sent after its start is acknowledged.
        self._round_end_seq = 0
        self._round_start_s: float | None = None
        self._round_bytes = 0
        self._round_rtt: float | None = None
        self._round_in_flight = 0
        self._blocked = False

    @property
    def window_bytes(self) -> int:
        """What may be un-acked."""
        return int(self._window)

    @property
    def rtt_s(self) -> float:
        """Smoothed round trip, with our own queue in it; 0.0 before the first ack."""
        return self._srtt

    @property
    def packet_bytes(self) -> int:
        """How large a packet should be at the rate of this link."""
        by_rate = self._rate_now() * PACKET_TIME_S
        return int(max(MIN_PACKET_BYTES, min(by_rate, self._window / 4, self._max_packet)))

    def statistics(self) -> PacingStatistics:
        """Figures as they stand."""
        return PacingStatistics(self.window_bytes, self._base_rtt or 0.0, self._srtt, self._rate_now())

    def blocked(self) -> None:
        """The window held data back: this round tells something of the link."""
        self._blocked = True

    def sample(self, rtt_s: float, ack_delay_s: float, now: float) -> None:
        """Take a round trip, of a packet or a ping."""
        rtt = max(rtt_s - min(ack_delay_s, MAX_ACK_DELAY_S), 1e-6)
        self._srtt = rtt if self._srtt == 0.0 else self._srtt + (rtt - self._srtt) / 8
        if self._base_rtt is None or rtt <= self._base_rtt:
            self._base_rtt, self._base_s = rtt, now
        if self._round_rtt is None or rtt < self._round_rtt:
            self._round_rtt = rtt

    def acknowledged(self, seq: int, count: int, in_flight_bytes: int, last_sent_seq: int, now: float) -> None:
        """Take an ack of `count` bytes up to `seq`, of what was in flight; `last_sent_seq` is the newest packet on
        its way.
        """
        if self._round_start_s is None:
            self._start_round(last_sent_seq, now)
            return
        self._round_bytes += count
        self._round_in_flight = max(self._round_in_flight, in_flight_bytes)
        if seq >= self._round_end_seq:
            self._end_round(now)
            self._start_round(last_sent_seq, now)

    # Internal

    def _rate_now(self) -> float:
        return self._rate or self._window / max(self._srtt, 0.001)

    def _target(self) -> float:
        return TARGET_BASE_S + 2 * self.packet_bytes / self._rate_now()

    def _start_round(self, end_seq: int, now: float) -> None:
        self._round_end_seq = end_seq
        self._round_start_s = now
        self._round_bytes = 0
        self._round_rtt = None
        self._round_in_flight = 0
        self._blocked = False

    def _end_round(self, now: float) -> None:
        rtt, base = self._round_rtt, self._base_rtt
        if rtt is None or base is None or self._round_start_s is None:
            return
        duration = now - self._round_start_s
        rate = self._round_bytes / max(duration, 1e-6)
        if self._blocked and self._rate > 0.0:
            self._rate += (rate - self._rate) / 4
        elif rate > self._rate:
            self._rate = rate
        if self._hold_rounds > 0:
            # What is acknowledged now was sent before the last change: it cannot show what the change did.
            self._hold_rounds -= 1
        elif self._probe_window is not None:
            self._end_probe(rtt, now)
        else:
            self._move(rtt, base, now)

    def _move(self, rtt: float, base: float, now: float) -> None:
        target = self._target()
        if rtt > base + 2 * target:
            self._cut(rtt, base + target)
        elif self._blocked:
            self._cut_rtt = 0.0
            self._steer(rtt, base, target)
        if self._blocked and now - self._base_s > BASE_AGE_S:
            self._probe_window = self._window
            self._set_window(self._window / 2)
            self._hold_rounds = 1

    def _steer(self, rtt: float, base: float, target: float) -> None:
        if rtt < base + target / 4:
            gain = 2.0 if self._slow_start else 1.0 + min(1.0, 0.125 * 2.0**self._calm_rounds)
            self._calm_rounds += 1
        else:
            gain = 1.0 + ((base + target) / rtt - 1.0) / 2
            self._slow_start = False
            self._calm_rounds = 0
        self._set_window(self._window * gain)

    def _cut(self, rtt: float, wanted_rtt: float) -> None:
        """The queue is far too long: shrink what is really in flight; if that does not help, the queue is not ours."""
        self._slow_start = False
        self._calm_rounds = 0
        if rtt > UNMOVED * self._cut_rtt > 0.0:
            self._unmoved_cuts += 1
        else:
            self._unmoved_cuts = 0
        self._cut_rtt = rtt
        if self._unmoved_cuts >= 2:
            self._base_rtt = rtt
            self._slow_start = True
            self._cut_rtt = 0.0
            self._unmoved_cuts = 0
            return
        in_flight = min(self._window, float(self._round_in_flight))
        if in_flight > MIN_WINDOW_BYTES:
            self._set_window(in_flight * max(0.5, wanted_rtt / rtt))
            self._hold_rounds = 1

    def _end_probe(self, rtt: float, now: float) -> None:
        self._base_rtt, self._base_s = rtt, now
        if self._probe_window is not None:
            self._set_window(self._probe_window)
        self._probe_window = None
        self._hold_rounds = 1

    def _set_window(self, window: float) -> None:
        self._window = min(max(window, float(MIN_WINDOW_BYTES)), self._max_window)
