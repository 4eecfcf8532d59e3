"""How much may be un-acked on the carrier: the bandwidth-delay product and a few milliseconds, found from acks alone.

gRPC and the kernel swallow megabytes ahead of a slow link, in front of every keystroke. So the bytes un-acked are held
to a window. This is how it is found; the code cites the numbers.

1. What an ack tells. It gives a pair: what was in flight when its packet left, and the queue that this packet met
   (`delay.py`: how much later it came than the least that was seen, the *base*). Of several acks the pair with the
   least queue counts: a busy processor holds up some packets, a queue of ours all of them. Acks are gathered over a
   *tick* (`TICK_S` at least) and over a *round*, which ends when all that was on its way at its start is acknowledged.
2. The law is that of FAST TCP (C. Jin, D. Wei, S. Low, "FAST TCP: Motivation, Architecture, Algorithms, Performance",
   INFOCOM 2004)

       window <- in flight * (base + target) / (base + queue)

   whose fixed point is a queue of `target` seconds whatever the rate. As the pairs are exact, one cut does, and needs
   no wait for its effect.
3. Only a window that holds data back is moved: a sender with nothing to say learns nothing. When a fraction of it was
   enough for `UNUSED_S`, all starts anew: what is known of the link may be long untrue, and the window would let all of
   itself out at once (RFC 2861).

A carrier goes through these modes:

4. STARTING: the window grows by what is acknowledged, as TCP's does, until a tick shows a queue (as HyStart does). It
   is then set to the law's, or to the rate of that tick if that is more: what left in bursts met a queue though the
   link had room.
5. SETTLING: for `SETTLING_ROUNDS`, acks of what left in bursts pass unheeded: they met queues that the window alone
   does not make. Packets leave no faster than acks come.
6. STEERING: the law moves the window half of the way once a round, and a tick with a queue far too long all of the way
   at once. With no queue to be seen the window grows, in steps that double for as long as none is seen: first by what
   would show as a queue of `target`, then by an eighth and more. After each step a round passes, since what was
   acknowledged left before it; and a step is made only from a window that was used.
7. PROBING: when the base was not seen for `BASE_AGE_S`, the window is halved for two rounds to see the empty path again
   (as ProbeRTT of BBR does): the first round's packets left before it was halved, the second shows what the path does
   alone. This moves neither window nor rate; then it is SETTLING, or STARTING if the path has become longer. Who was
   STARTING probes too (PROBING_START), and goes on STARTING.
8. A queue that is not ours becomes the base: a delay that is there with next to nothing in flight, that does not fall
   though half as much is in flight (`cuts.py`), or that a probe still shows. It is the path's, or a neighbour's.
9. Below `PACED_BELOW_BYTES_PER_S` packets leave evenly spread over the round trip: acks that come in clumps, as they do
   from behind the bulk of the other direction, would else send the next packets in clumps. One that left late is made
   up for; several are where a busy processor was all that they were late for. That packets leave at each of its rare
   turns, not one, is what keeps it from passing for a slow link.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from tunnel.core.path.cuts import Cuts
from tunnel.core.path.delay import PathDelay
from tunnel.core.path.spans import Round, Span

INITIAL_WINDOW_BYTES = 16 * 1024
"""The first window, as TCP's (RFC 6928, 10 segments)."""
MIN_PACKET_BYTES = 1400
"""The least size of a packet: frames are not cut below a segment. It takes 11 ms at 1 Mbit/s."""
MIN_WINDOW_BYTES = 4 * MIN_PACKET_BYTES
PACKET_TIME_S = 0.004
"""A packet should not take the link for longer than this, so that what is interactive gets its turn."""
TARGET_BASE_S = 0.002
"""The queue that covers delayed acks. A packet's time is added, so that the link always has the next one,
and jitter.
"""
SPREAD_ACKS = 8
"""A round of fewer acks says nothing of jitter."""
MAX_JITTER_SHARE = 0.1
"""The most of the least round trip that is left to jitter, as a share; with none, 20 ms of it cost half the rate at 50
ms.
"""
BASE_AGE_S = 10.0
LEAST_BASE_AGE_S = 1.0
"""What BASE_AGE_S is for a window that is as small as it gets, and may be so because of a delay that is not ours."""
TICK_S = 0.02
"""The least length of a tick. Processes that share a processor wait for one another for some milliseconds: a shorter
tick would show only that.
"""
TICK_ACKS = 4
"""How many acks must show a queue; one alone may be the jitter of a radio link."""
SETTLING_ROUNDS = 2
"""How many rounds SETTLING takes after the start, until the bursts of the start are gone."""
PROBE_ROUNDS = 2
UNUSED_S = 1.0
UNUSED_SHARE = 0.25
TESTED = 0.75
"""The share of the window that in flight must have reached before the window grows further."""
PACED_BELOW_BYTES_PER_S = 12.5e6
"""The rate below which packets are paced, 100 Mbit/s. Beyond it clumps are shorter than the waits of a busy processor,
and timers would cost too much.
"""
PACE_GAIN = 1.25
"""How much faster than one window in a round trip packets may leave: pacing must not be what holds back the rate."""
START_PACE_GAIN = 2.0


class Mode(Enum):
    """What a pacer is doing. The numbers are those of the text at the top of this file."""

    NEW = "new"
    """Nothing was acknowledged yet; the first ack begins STARTING."""
    STARTING = "starting"
    """4: the window grows by what is acknowledged."""
    SETTLING = "settling"
    """5: acks of what left in bursts pass unheeded."""
    STEERING = "steering"
    """6: the law moves the window."""
    PROBING = "probing"
    """7: the window is halved, to see the empty path."""
    PROBING_START = "probing at the start"
    """7: the same, before a queue was ever seen."""


class PacingStatistics(NamedTuple):
    """Figures of a pacer."""

    window_bytes: int
    base_rtt_s: float
    rtt_s: float
    rate_bytes_per_s: float
    mode: Mode


class Pacer:
    """The window of one carrier. A new carrier may be another path: it gets a new Pacer."""

    __slots__ = (
        "_calm_rounds", "_cuts", "_delay", "_grown", "_held", "_max_packet", "_max_window", "_mode", "_rate", "_round",
        "_rounds_left", "_spread_s", "_tick", "_unprobed_window", "_used_s", "_window", "release_s",
    )  # fmt: skip

    def __init__(self, max_window_bytes: int, max_packet_bytes: int) -> None:
        """Begins with nothing known of the path.

        The window stays within one maximum, `packet_bytes` within the other.
        """
        self._mode = Mode.NEW
        self._rounds_left = 0
        """How many rounds are left of a mode that lasts some: SETTLING and both kinds of PROBING."""
        self._max_window = float(max_window_bytes)
        self._max_packet = max_packet_bytes
        self._window = float(min(INITIAL_WINDOW_BYTES, max_window_bytes))
        self._unprobed_window = self._window
        """What the window becomes again after PROBING."""
        self._delay = PathDelay()
        self._rate = 0.0
        """Bytes per second; 0.0 before it was measured."""
        self._calm_rounds = 0
        """How many steps of growth STEERING has made in a row; the size of the next one goes by it."""
        self._grown = False
        """Whether the last round of STEERING made such a step."""
        self._spread_s = 0.0
        """How far the mean queue of a round lies above its least, smoothed. Beyond a packet's time it is jitter."""
        self._cuts = Cuts()
        self._tick = Span(0.0)
        self._round = Round(0.0, 0, follows_blocked=False)
        self._used_s = 0.0
        """When the window was last needed."""
        self._held = False
        """Whether bulk has waited for `release_s` and for nothing else."""
        self.release_s = 0.0
        """When the next bulk may leave, on the session's clock."""

    # Public

    @property
    def window_bytes(self) -> int:
        """Returns how many bytes may be un-acked."""
        return int(self._window)

    @property
    def rtt_s(self) -> float:
        """Returns the smoothed round trip in seconds, with our own queue in it; 0.0 before the first ack."""
        return self._delay.srtt_s

    @property
    def packet_bytes(self) -> int:
        """Returns how many bytes a packet should have at the rate of this link."""
        by_rate = self._rate_now() * PACKET_TIME_S
        return int(max(MIN_PACKET_BYTES, min(by_rate, self._window / 4, self._max_packet)))

    def statistics(self) -> PacingStatistics:
        """Returns the figures as they stand."""
        return PacingStatistics(self.window_bytes, self._delay.base_rtt_s, self.rtt_s, self._rate_now(), self._mode)

    def blocked(self) -> None:
        """Notes that the window held data back: this round tells something of the link (3)."""
        self._round.blocked = True
        self._held = False

    def held(self) -> None:
        """Notes that bulk waits for `release_s` and for nothing else.

        By how much later it leaves is made up for (9).
        """
        self._held = True

    def rests(self) -> None:
        """Notes that no bulk waits: time that passes now is not made up for."""
        self._held = False

    def sent(self, count: int, now: float) -> None:
        """Counts a packet of `count` bytes that leaves now, and sets how long the next bulk waits for it (9)."""
        if now - self._used_s > UNUSED_S:
            self._used_s = now
            self._start_anew()
        # Once a long queue is gone, the smoothed round trip is still long for a while.
        rtt_s = self._delay.rtt_s if self._delay.rtt_s < self.rtt_s / 2 else self.rtt_s
        # No more than 1 us for the least: a window that pacing holds back is never full, and would never grow.
        rate = self._window / max(rtt_s, 1e-6)
        if rate < PACED_BELOW_BYTES_PER_S:
            gap_s = count / (rate * self._pace_gain())
            self.release_s = (self.release_s if self._held else max(self.release_s, now - gap_s)) + gap_s
        self._held = self._held and self.release_s <= now

    def sample(self, rtt_s: float, ack_delay_s: float, forward_us: int | None, now: float) -> None:
        """Takes a round trip, of a packet or a ping; see `PathDelay.sample`."""
        self._delay.sample(rtt_s, ack_delay_s, forward_us, now)

    def acknowledged(self, seq: int, count: int, in_flight_bytes: int, last_sent_seq: int, now: float) -> None:
        """Takes an ack. Call `sample` for it first.

        Args:
            seq: the newest packet that it acknowledges.
            count: the bytes that it acknowledges.
            in_flight_bytes: what was on its way when that packet left.
            last_sent_seq: the newest packet on its way now.
            now: the session's clock.
        """
        if self._round.blocked or in_flight_bytes > UNUSED_SHARE * self._window:
            self._used_s = now
        if self._mode is Mode.NEW:
            self._mode = Mode.STARTING
            self._start_round(last_sent_seq, now)
        elif self._mode is Mode.SETTLING:
            self._settle(seq, last_sent_seq, now)
        else:
            self._learn(seq, count, in_flight_bytes, last_sent_seq, now)

    # Internal - modes

    @property
    def _growing(self) -> bool:
        """Returns whether no queue was seen yet, or none since all started anew."""
        mode = self._mode
        return mode is Mode.STARTING or mode is Mode.PROBING_START or mode is Mode.NEW

    @property
    def _probing(self) -> bool:
        return self._mode is Mode.PROBING or self._mode is Mode.PROBING_START

    def _start_anew(self) -> None:
        """Starts anew after a time in which the window was hardly used (3)."""
        self._window = min(self._window, float(INITIAL_WINDOW_BYTES))
        self._rate = 0.0
        self._calm_rounds = 0
        self._cuts.forget()
        if self._mode is not Mode.NEW:
            self._mode = Mode.STARTING

    def _begin_settling(self) -> None:
        """Goes over to SETTLING (5)."""
        self._mode = Mode.SETTLING
        self._rounds_left = SETTLING_ROUNDS

    def _settle(self, seq: int, last_sent_seq: int, now: float) -> None:
        if seq < self._round.end_seq:
            return
        self._rounds_left -= 1
        if self._rounds_left == 0:
            self._mode = Mode.STEERING
        self._start_round(last_sent_seq, now)

    def _begin_probing(self) -> None:
        """Halves the window, to see the empty path (7)."""
        least = self._window <= MIN_WINDOW_BYTES
        half = min(self._window, self._rate * self._delay.base_rtt_s) / 2
        self._unprobed_window = self._window
        self._window = MIN_PACKET_BYTES if least else max(half, MIN_WINDOW_BYTES)
        self._mode = Mode.PROBING_START if self._growing else Mode.PROBING
        self._rounds_left = PROBE_ROUNDS

    def _end_probing(self, span: Span, now: float) -> None:
        own_s = 0.0
        if span.most_in_flight_bytes > MIN_PACKET_BYTES:
            rate = self._rate_now()
            packet_s = min(self.packet_bytes / rate, PACKET_TIME_S)
            own_s = max(0.0, span.in_flight_bytes / rate - self._delay.base_rtt_s) + packet_s
        foreign_s = max(0.0, span.queue_s - own_s)
        # A path that has become longer is another path, for which the window is too small.
        longer = foreign_s > self._target()
        self._delay.rebase(foreign_s, span.rtt_s - own_s, now)
        self._set_window(self._unprobed_window)
        if longer or self._mode is Mode.PROBING_START:
            self._mode = Mode.STARTING
        else:
            self._begin_settling()

    # Internal - ticks and rounds

    def _start_round(self, end_seq: int, now: float) -> None:
        self._round = Round(now, end_seq, follows_blocked=self._round.blocked)

    def _learn(self, seq: int, count: int, in_flight_bytes: int, last_sent_seq: int, now: float) -> None:
        """Takes an ack that says something of the link, and ends the tick and the round that are over with it."""
        tick, round_, growing = self._tick, self._round, self._growing
        for span in (tick, round_):
            span.add(count, in_flight_bytes, self._delay.queue_s, self._delay.rtt_s)
        if growing and (round_.blocked or round_.follows_blocked):
            self._set_window(self._window + count)
        if tick.acks >= TICK_ACKS and now - tick.start_s >= TICK_S:
            self._end_tick(tick, now)
            self._tick = Span(now)
            if growing and not self._growing:
                self._begin_settling()
                self._start_round(last_sent_seq, now)
                return
        if seq >= round_.end_seq and now - round_.start_s >= TICK_S:
            self._end_round(round_, now)
            self._start_round(last_sent_seq, now)

    def _end_tick(self, span: Span, now: float) -> None:
        """Cuts a queue that is far too long (6), or the first that is seen (4)."""
        target, growing = self._target(), self._growing
        if self._probing or span.in_flight_bytes < self._window / (4 if growing else 2):
            return  # It was not the window that filled the path. While starting, that was half as wide when it left.
        if span.queue_s <= (target if growing else 2 * target):
            if span.queue_s <= target:
                self._cuts.forget()
            return
        window = self._fitting(span)
        if growing:  # What left in bursts met a queue though the link had room; but now it was busy all the time.
            rate = span.bytes / (now - span.start_s)
            window = max(window, rate * (self._delay.base_rtt_s + target))
        self._mode = Mode.STEERING
        self._calm_rounds = 0
        self._rate = min(self._rate, span.in_flight_bytes / (self._delay.base_rtt_s + span.queue_s)) or self._rate
        self._shrink(span, window, now)

    def _end_round(self, span: Round, now: float) -> None:
        rate = span.bytes / (now - span.start_s)
        if span.blocked and not self._probing:
            self._rate += (rate - self._rate) / (4 if self._rate > 0.0 else 1)
        elif 0.0 < self._rate < rate:  # less says only that there was little to send
            self._rate = rate
        if span.acks >= SPREAD_ACKS:
            self._spread_s += (span.spread_s - self._spread_s) / 8
        if self._probing:
            self._rounds_left -= 1
            if self._rounds_left == 0:
                self._end_probing(span, now)
        elif span.most_in_flight_bytes <= MIN_PACKET_BYTES and span.queue_s > 2 * TARGET_BASE_S:
            self._delay.rebase(span.queue_s, span.rtt_s, now)
        elif span.blocked:
            if self._mode is Mode.STEERING:
                self._steer(span, now)
            least = self._window <= MIN_WINDOW_BYTES
            if now - self._delay.base_seen_s > (LEAST_BASE_AGE_S if least else BASE_AGE_S):
                self._begin_probing()

    # Internal - the law

    def _pace_gain(self) -> float:
        if self._growing:
            return START_PACE_GAIN
        # What fills a path again faster than it carries meets a queue, for which the window would be cut in the end.
        return 1.0 if self._mode is Mode.SETTLING else PACE_GAIN

    def _rate_now(self) -> float:
        return self._rate or self._window / max(self.rtt_s, 0.001)

    def _target(self) -> float:
        packet_s = self.packet_bytes / self._rate_now()
        jitter_s = min(max(0.0, self._spread_s - packet_s), self._delay.base_rtt_s * MAX_JITTER_SHARE)
        return TARGET_BASE_S + packet_s + jitter_s

    def _fitting(self, span: Span) -> float:
        """Returns the window that makes the queue what it should be (2)."""
        base = self._delay.base_rtt_s
        return span.in_flight_bytes * (base + self._target()) / (base + span.queue_s)

    def _steer(self, span: Span, now: float) -> None:
        """Moves the window half of the law's way, or a step up (6)."""
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

    def _shrink(self, span: Span, window: float, now: float) -> None:
        """Puts less in flight; or, if that was in vain before, takes the queue for the path's own (8)."""
        unneeded = self._cuts.in_vain(self._delay.base_rtt_s + span.queue_s, span.in_flight_bytes, self._window)
        if unneeded is None:
            self._set_window(min(self._window, window))
            return
        self._set_window(unneeded)
        self._delay.rebase(span.queue_s, span.rtt_s, now)
        self._mode = Mode.STARTING

    def _set_window(self, window: float) -> None:
        self._window = min(max(window, float(MIN_WINDOW_BYTES)), self._max_window)
