"""How much may be un-acked on the carrier: the bandwidth-delay product and a few milliseconds, found from acks alone.

gRPC and the kernel swallow megabytes ahead of a slow link, in front of every keystroke. So the bytes un-acked are held
to `window`, which follows our own queue (`delay.py`): FAST TCP's update (C. Jin, D. Wei, S. Low, "FAST TCP: Motivation,
Architecture, Algorithms, Performance", INFOCOM 2004)

    window <- in flight * (base + target) / (base + queue)

whose fixed point is a queue of `target` seconds whatever the rate. Each ack gives a pair: what was in flight when its
packet left, and the queue that this packet met. Of several acks the pair with the least queue counts: a busy processor
holds up some packets, a queue of ours all of them. Then:

- it starts as TCP does, growing by what is acknowledged, until a few acks in a row show a queue (as HyStart does);
- a queue far too long is cut within `TICK_S`; as the pairs are exact, one cut does, and needs no wait for its effect;
- else it moves once a round trip, and grows faster the longer no queue is seen;
- it moves only while it holds data back: a sender with nothing to say learns nothing;
- when a fraction of it was enough for `UNUSED_S`, it starts anew: what it knew of the link may be long untrue, and it
  would let all of itself out at once (RFC 2861);
- below `PACED_BELOW_BYTES_PER_S` packets leave evenly spread over the round trip: acks that come in clumps, as they do
  from behind the bulk of the other direction, would else send the next packets in clumps;
- every `BASE_AGE_S` the window is halved for one round, to see the empty path again (as ProbeRTT of BBR does);
  then the path is filled no faster than it carries, and what it shows meanwhile moves nothing;
- a delay that is there with next to nothing in flight, or does not fall though half as much is in flight, is the path's
  or a neighbour's, not ours: it becomes the base.
"""

from __future__ import annotations

from typing import NamedTuple

from tunnel.core.path.delay import PathDelay

INITIAL_WINDOW_BYTES = 16 * 1024
"""As TCP's first window (RFC 6928, 10 segments)."""
MIN_PACKET_BYTES = 1400
"""Frames are not cut below a segment: 11 ms at 1 Mbit/s."""
MIN_WINDOW_BYTES = 4 * MIN_PACKET_BYTES
PACKET_TIME_S = 0.004
"""A packet should not take the link for longer, so that what is interactive gets its turn."""
TARGET_BASE_S = 0.002
"""Queue that covers delayed acks. A packet's time is added, so that the link always has the next one, and jitter."""
SPREAD_ACKS = 8
"""A round of fewer says nothing of jitter."""
MAX_JITTER_SHARE = 0.1
"""So much of the least round trip is left to jitter at most; with none, 20 ms of it cost half the rate at 50 ms."""
BASE_AGE_S = 10.0
LEAST_BASE_AGE_S = 1.0
"""The same for a window that is as small as it gets, and may be so for a delay that is not ours."""
TICK_S = 0.02
"""Processes that share a processor wait for one another for some milliseconds: less would show only that."""
TICK_ACKS = 4
"""Acks that must show a queue; one alone may be the jitter of a radio link."""
SETTLING_ROUNDS = 2
"""After the start, until the bursts are gone that it came in."""
REAL_CUT = 0.5
"""In flight must have shrunk to so much before a delay that stayed is held against the path."""
UNUSED_S = 1.0
UNUSED_SHARE = 0.25
TESTED = 0.75
"""In flight must have come so near the window before it grows further."""
PACED_BELOW_BYTES_PER_S = 12.5e6
"""100 Mbit/s: beyond it clumps are shorter than the waits of a busy processor, and timers would cost too much."""
PACE_GAIN = 1.25
"""How much faster than the window goes round packets may leave: pacing must not be what holds back the rate."""
START_PACE_GAIN = 2.0


class PacingStatistics(NamedTuple):
    """Figures of the pacer."""

    window_bytes: int
    base_rtt_s: float
    rtt_s: float
    rate_bytes_per_s: float


class _Cut(NamedTuple):
    """A queue that was too long, and what was in flight with it."""

    rtt_s: float
    in_flight_bytes: int
    window_bytes: float
    """The window before it was cut for this queue."""


class _Span:
    """Some acks in a row."""

    __slots__ = ("acks", "bytes", "in_flight_bytes", "most_in_flight_bytes", "queue_s", "queues_s", "rtt_s", "start_s")

    def __init__(self, now: float) -> None:
        self.start_s = now
        self.acks = 0
        self.bytes = 0
        self.most_in_flight_bytes = 0
        self.queue_s = float("inf")
        """The least queue that a packet met."""
        self.in_flight_bytes = 0
        """What was in flight when that packet left."""
        self.queues_s = 0.0
        self.rtt_s = float("inf")
        """The least round trip."""

    @property
    def spread_s(self) -> float:
        """How far the mean queue lies above the least."""
        return self.queues_s / self.acks - self.queue_s

    def add(self, count: int, in_flight_bytes: int, queue_s: float, rtt_s: float) -> None:
        self.acks += 1
        self.bytes += count
        self.queues_s += queue_s
        self.rtt_s = min(self.rtt_s, rtt_s)
        self.most_in_flight_bytes = max(self.most_in_flight_bytes, in_flight_bytes)
        if queue_s <= self.queue_s:
            self.queue_s = queue_s
            self.in_flight_bytes = in_flight_bytes


class Pacer:
    """The window of one carrier. A new carrier may be another path: it gets a new Pacer."""

    __slots__ = (
        "_blocked", "_calm_rounds", "_cut", "_delay", "_grown", "_held", "_max_packet", "_max_window", "_probe_rounds",
        "_probe_window", "_rate", "_round", "_round_end_seq", "_settling_rounds", "_spread_s", "_starting", "_tick",
        "_used_s", "_was_blocked", "_window", "release_s",
    )  # fmt: skip

    def __init__(self, max_window_bytes: int, max_packet_bytes: int) -> None:
        self._max_window = float(max_window_bytes)
        self._max_packet = max_packet_bytes
        self._window = float(min(INITIAL_WINDOW_BYTES, max_window_bytes))
        self._delay = PathDelay()
        self._rate = 0.0
        self._starting = True
        self._calm_rounds = 0
        self._grown = False
        self._spread_s = 0.0
        """How far the mean queue of a round lies above its least, smoothed. Beyond a packet's time it is jitter."""
        self._cut: _Cut | None = None
        self._probe_window: float | None = None
        self._probe_rounds = 0
        self._tick = _Span(0.0)
        # The round that runs: it ends when all that was on its way at its start is acknowledged.
        self._round: _Span | None = None
        self._round_end_seq = 0
        self._settling_rounds = 0
        self._used_s = 0.0
        """When the window was last needed."""
        self._blocked = False
        self._was_blocked = False
        self._held = False
        """Whether bulk has waited for `release_s` and for nothing else."""
        self.release_s = 0.0
        """When the next bulk may leave."""

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
        return PacingStatistics(self.window_bytes, self._delay.base_rtt_s, self.rtt_s, self._rate_now())

    def blocked(self) -> None:
        """The window held data back: this round tells something of the link."""
        self._blocked = True
        self._held = False

    def held(self) -> None:
        """Bulk waits for `release_s`, and for nothing else: by how much later than that it leaves is made up for."""
        self._held = True

    def rests(self) -> None:
        """No bulk waits: time that passes now is not made up for."""
        self._held = False

    def sent(self, count: int, now: float) -> None:
        """Count a packet that leaves now: how long the next bulk waits for it."""
        if now - self._used_s > UNUSED_S:
            self._used_s = now
            self._start_anew()
        # Once a long queue is gone, the smoothed round trip is still long for a while.
        rtt_s = self._delay.rtt_s if self._delay.rtt_s < self.rtt_s / 2 else self.rtt_s
        # No more than 1 us for the least: a window that pacing holds back is never full, and would never grow.
        rate = self._window / max(rtt_s, 1e-6)
        if rate < PACED_BELOW_BYTES_PER_S:
            gap_s = count / (rate * self._pace_gain())
            # One that left late is made up for, two only where a busy processor was all that it was late for: that
            # packets leave at each of its rare turns, not one, is what keeps it from passing for a slow link.
            self.release_s = (self.release_s if self._held else max(self.release_s, now - gap_s)) + gap_s
        self._held = self._held and self.release_s <= now

    def sample(self, rtt_s: float, ack_delay_s: float, forward_us: int | None, now: float) -> None:
        """Take a round trip, of a packet or a ping; see `PathDelay.sample`."""
        self._delay.sample(rtt_s, ack_delay_s, forward_us, now)

    def acknowledged(self, seq: int, count: int, in_flight_bytes: int, last_sent_seq: int, now: float) -> None:
        """Take an ack of `count` bytes up to `seq`; `in_flight_bytes` were on their way when that packet left,
        `last_sent_seq` is the newest packet on its way now. Its `sample` comes first.
        """
        if self._blocked or in_flight_bytes > UNUSED_SHARE * self._window:
            self._used_s = now
        if self._round is None:
            self._start_round(last_sent_seq, now)
            return
        if self._settling_rounds > 0:
            if seq >= self._round_end_seq:
                self._settling_rounds -= 1
                self._start_round(last_sent_seq, now)
            return
        for span in (self._tick, self._round):
            span.add(count, in_flight_bytes, self._delay.queue_s, self._delay.rtt_s)
        if self._starting and (self._blocked or self._was_blocked):
            self._set_window(self._window + count)
        if self._tick.acks >= TICK_ACKS and now - self._tick.start_s >= TICK_S:
            starting = self._starting
            self._end_tick(self._tick, now)
            self._tick = _Span(now)
            if starting and not self._starting:
                # What left in the bursts of a start meets queues that the window alone does not make.
                self._settling_rounds = SETTLING_ROUNDS
                self._start_round(last_sent_seq, now)
                return
        if seq >= self._round_end_seq and now - self._round.start_s >= TICK_S:
            self._end_round(self._round, now)
            self._start_round(last_sent_seq, now)

    # Internal

    def _start_anew(self) -> None:
        self._window = min(self._window, float(INITIAL_WINDOW_BYTES))
        self._rate = 0.0
        self._starting = True
        self._calm_rounds = self._settling_rounds = 0
        self._cut = self._probe_window = None

    def _pace_gain(self) -> float:
        if self._starting:
            return START_PACE_GAIN
        # What fills a path again faster than it carries meets a queue, for which the window would be cut in the end.
        return 1.0 if self._settling_rounds > 0 else PACE_GAIN

    def _rate_now(self) -> float:
        return self._rate or self._window / max(self.rtt_s, 0.001)

    def _target(self) -> float:
        packet_s = self.packet_bytes / self._rate_now()
        jitter_s = min(max(0.0, self._spread_s - packet_s), self._delay.base_rtt_s * MAX_JITTER_SHARE)
        return TARGET_BASE_S + packet_s + jitter_s

    def _fitting(self, span: _Span) -> float:
        """The window that makes the queue what it should be."""
        base = self._delay.base_rtt_s
        return span.in_flight_bytes * (base + self._target()) / (base + span.queue_s)

    def _start_round(self, end_seq: int, now: float) -> None:
        self._round = _Span(now)
        self._round_end_seq = end_seq
        self._was_blocked = self._blocked
        self._blocked = False

    def _end_tick(self, span: _Span, now: float) -> None:
        """Cut a queue that is far too long, or the first that is seen."""
        target = self._target()
        if self._probe_window is not None or span.in_flight_bytes < self._window / (4 if self._starting else 2):
            return  # It was not the window that filled the path. While starting, that was half as wide when it left.
        if span.queue_s <= (target if self._starting else 2 * target):
            if span.queue_s <= target:
                self._cut = None
            return
        window = self._fitting(span)
        if (
            self._starting
        ):  # What left in bursts met a queue though the link had room; but now it was busy all the time.
            rate = span.bytes / (now - span.start_s)
            window = max(window, rate * (self._delay.base_rtt_s + target))
        self._starting = False
        self._calm_rounds = 0
        self._rate = min(self._rate, span.in_flight_bytes / (self._delay.base_rtt_s + span.queue_s)) or self._rate
        self._shrink(span, window, now)

    def _shrink(self, span: _Span, window: float, now: float) -> None:
        """Put less in flight, unless that was in vain before."""
        if self._in_vain(span):
            self._delay.rebase(span.queue_s, span.rtt_s, now)
            self._starting = True
        else:
            self._set_window(min(self._window, window))

    def _in_vain(self, span: _Span) -> bool:
        """Whether less in flight did not help: a queue of ours shrinks as what is in flight does. The window is then
        again what it was.
        """
        rtt, in_flight, cut = self._delay.base_rtt_s + span.queue_s, span.in_flight_bytes, self._cut
        if cut is None:
            self._cut = _Cut(rtt, in_flight, self._window)
            return False
        share = in_flight / cut.in_flight_bytes
        if share > REAL_CUT:
            if rtt > cut.rtt_s:
                self._cut = _Cut(rtt, in_flight, cut.window_bytes)
            return False
        if rtt <= cut.rtt_s * (1.0 + share) / 2:
            self._cut = _Cut(rtt, in_flight, self._window)
            return False
        self._set_window(cut.window_bytes)
        self._cut = None
        return True

    def _end_round(self, span: _Span, now: float) -> None:
        rate = span.bytes / (now - span.start_s)
        if self._blocked and self._probe_window is None:
            self._rate += (rate - self._rate) / (4 if self._rate > 0.0 else 1)
        elif 0.0 < self._rate < rate:  # less says only that there was little to send
            self._rate = rate
        if span.acks >= SPREAD_ACKS:
            self._spread_s += (span.spread_s - self._spread_s) / 8
        if self._probe_window is not None:
            self._go_on_probing(self._probe_window, span, now)
        elif span.most_in_flight_bytes <= MIN_PACKET_BYTES and span.queue_s > 2 * TARGET_BASE_S:
            self._delay.rebase(span.queue_s, span.rtt_s, now)
        elif self._blocked:
            if not self._starting:
                self._steer(span, now)
            least = self._window <= MIN_WINDOW_BYTES
            if now - self._delay.base_seen_s > (LEAST_BASE_AGE_S if least else BASE_AGE_S):
                self._probe_window, self._probe_rounds = self._window, 2
                half = min(self._window, self._rate * self._delay.base_rtt_s) / 2
                self._window = MIN_PACKET_BYTES if least else max(half, MIN_WINDOW_BYTES)

    def _steer(self, span: _Span, now: float) -> None:
        target, base = self._target(), self._delay.base_rtt_s
        gain = (1.0 + (base + target) / (base + span.queue_s)) / 2
        if span.queue_s > target:
            self._calm_rounds = 0
            self._shrink(span, max(self._window * gain, self._fitting(span)), now)
        elif span.queue_s > target / 4:
            self._calm_rounds = 0
            self._set_window(self._window * gain)
        elif self._grown:
            self._grown = False  # What was acknowledged left before the window grew: wait for what that does.
        elif span.most_in_flight_bytes > TESTED * self._window:
            self._grown = True
            # First what would show as a queue of `target`; when it does not, the link has become faster.
            step = 0.125 * 2.0**self._calm_rounds if self._calm_rounds else target / base
            self._set_window(self._window * (1.0 + min(1.0, step)))
            self._calm_rounds += 1

    def _go_on_probing(self, window: float, span: _Span, now: float) -> None:
        """The first round's packets left before the window was halved; the second shows what the path does alone."""
        self._probe_rounds -= 1
        if self._probe_rounds > 0:
            return
        own_s = 0.0
        if span.most_in_flight_bytes > MIN_PACKET_BYTES:
            rate = self._rate_now()
            packet_s = min(self.packet_bytes / rate, PACKET_TIME_S)
            own_s = max(0.0, span.in_flight_bytes / rate - self._delay.base_rtt_s) + packet_s
        foreign_s = max(0.0, span.queue_s - own_s)
        # A path that has become longer is another path, for which the window is too small.
        self._starting = self._starting or foreign_s > self._target()
        self._delay.rebase(foreign_s, span.rtt_s - own_s, now)
        self._set_window(window)
        self._probe_window = None
        self._settling_rounds = 0 if self._starting else SETTLING_ROUNDS

    def _set_window(self, window: float) -> None:
        self._window = min(max(window, float(MIN_WINDOW_BYTES)), self._max_window)
