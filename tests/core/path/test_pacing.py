"""tunnel.core.path.pacing: the window's law on a model of one link. Whole links are in test_simulated_links.py."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tunnel.core.path.pacing import (
    BASE_AGE_S,
    INITIAL_WINDOW_BYTES,
    MIN_PACKET_BYTES,
    MIN_WINDOW_BYTES,
    PACE_GAIN,
    PACED_BELOW_BYTES_PER_S,
    PACKET_TIME_S,
    START_PACE_GAIN,
    UNUSED_S,
    Mode,
    Pacer,
)

MAX_WINDOW = 1 << 25


class FluidLink:
    """A link that a pacer keeps full: each round trip, a window of packets goes out and its acks come back."""

    def __init__(self, pacer: Pacer, *, rate: float, rtt_s: float, blocked: bool = True) -> None:
        self.pacer, self.rate, self.rtt_s, self.blocked = pacer, rate, rtt_s, blocked
        self.now = 0.0
        self.seq = 0
        self.foreign_s = 0.0
        """Delay that is not of our making."""
        self.late_s = 0.0
        """How much later every second packet is seen: a processor was busy elsewhere."""
        self.share = 1.0
        """Of the window that is in flight."""

    def rounds(self, count: int) -> None:
        for _ in range(count):
            in_flight = int(self.pacer.window_bytes * self.share)
            queue = max(0.0, in_flight / self.rate - self.rtt_s) + self.foreign_s
            packets = 10
            for one in range(packets):
                self.seq += 1
                self.now += (self.rtt_s + queue) / packets
                if self.blocked:
                    self.pacer.blocked()
                late = self.late_s if one % 2 else 0.0
                forward_us = round((self.rtt_s / 2 + queue + late) * 1e6)
                self.pacer.sample(self.rtt_s + queue + late, 0.0, forward_us, self.now)
                last = self.seq + (packets - 1 - one)
                self.pacer.acknowledged(self.seq, in_flight // packets, in_flight, last, self.now)

    @property
    def queue_s(self) -> float:
        return max(0.0, self.pacer.window_bytes / self.rate - self.rtt_s)


def _pacer(max_window: int = MAX_WINDOW) -> Pacer:
    return Pacer(max_window, 512 * 1024)


@pytest.mark.parametrize(("rate", "rtt_s"), [(125_000, 0.2), (625_000, 0.05), (12.5e6, 0.02), (125e6, 0.05)])
def test_window_settles_at_the_product_and_a_small_queue(rate: float, rtt_s: float) -> None:
    link = FluidLink(_pacer(), rate=rate, rtt_s=rtt_s)
    link.rounds(60)
    assert link.pacer.window_bytes >= 0.95 * rate * rtt_s
    assert link.queue_s <= 0.02 + 3 * MIN_PACKET_BYTES / rate + 0.1 * rtt_s


def test_window_starts_small_and_reaches_a_gigabit_in_a_dozen_round_trips() -> None:
    pacer = _pacer()
    assert pacer.window_bytes == INITIAL_WINDOW_BYTES
    link = FluidLink(pacer, rate=125e6, rtt_s=0.05)
    link.rounds(12)
    assert pacer.window_bytes >= 0.9 * 125e6 * 0.05


def test_window_stays_within_its_maximum() -> None:
    link = FluidLink(_pacer(100_000), rate=125e6, rtt_s=0.05)
    link.rounds(50)
    assert link.pacer.window_bytes == 100_000
    assert _pacer(8000).window_bytes == 8000


def test_sender_with_nothing_to_say_learns_nothing() -> None:
    link = FluidLink(_pacer(), rate=125e6, rtt_s=0.05, blocked=False)
    link.rounds(30)
    assert link.pacer.window_bytes == INITIAL_WINDOW_BYTES


def test_window_that_is_not_tried_out_does_not_grow() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    link.rounds(40)
    window = link.pacer.window_bytes
    link.rate, link.share = 12.5e6, 0.5
    link.rounds(20)
    assert link.pacer.window_bytes <= 1.2 * window
    link.share = 1.0
    link.rounds(20)
    assert link.pacer.window_bytes > 3 * window


def test_slower_link_empties_its_queue_in_a_few_rounds() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.02)
    link.rounds(40)
    link.rate = 125_000
    link.rounds(12)
    assert link.queue_s < 0.06


def test_faster_link_is_used_in_a_dozen_rounds() -> None:
    link = FluidLink(_pacer(), rate=125_000, rtt_s=0.1)
    link.rounds(40)
    link.rate = 1.25e6
    link.rounds(20)
    assert link.pacer.window_bytes >= 0.9 * 1.25e6 * 0.1


def test_window_never_falls_below_a_few_packets() -> None:
    link = FluidLink(_pacer(), rate=2000, rtt_s=0.05)
    link.rounds(40)
    assert MIN_WINDOW_BYTES <= link.pacer.window_bytes <= 2 * MIN_WINDOW_BYTES
    assert link.pacer.packet_bytes == MIN_PACKET_BYTES


def test_delay_that_no_cut_takes_away_becomes_the_base() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.02)
    link.rounds(40)
    link.rtt_s = 0.2
    link.rounds(20)
    assert link.pacer.statistics().base_rtt_s == pytest.approx(0.2, abs=0.05)
    assert link.pacer.window_bytes >= 0.9 * 1.25e6 * 0.2


def test_busy_processor_is_not_a_slow_link() -> None:
    link = FluidLink(_pacer(), rate=12.5e6, rtt_s=0.05)
    link.rounds(40)
    before = link.pacer.window_bytes
    link.late_s = 0.04
    link.rounds(40)
    assert link.pacer.window_bytes >= 0.99 * before


def test_queue_far_too_long_is_cut_before_the_round_is_over() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    link.rounds(40)
    pacer, in_flight = link.pacer, link.pacer.window_bytes
    pacer.acknowledged(link.seq, 0, in_flight, link.seq + 1000, link.now)
    for one in range(10):  # at a tenth of the rate; nothing that left since comes back yet
        link.now += 0.01
        rtt_s = 0.06 + 0.009 * one
        pacer.blocked()
        pacer.sample(rtt_s, 0.0, round((rtt_s - 0.025) * 1e6), link.now)
        pacer.acknowledged(link.seq + one, 1250, in_flight, link.seq + 1000, link.now)
    assert pacer.window_bytes < 0.7 * in_flight


def test_delay_with_next_to_nothing_in_flight_becomes_the_base_and_leaves_the_window() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.02)
    link.rounds(40)
    before = link.pacer.window_bytes
    for _ in range(3):
        link.seq += 1
        link.now += 0.2
        link.pacer.sample(0.2, 0.0, 100_000, link.now)
        link.pacer.acknowledged(link.seq, 50, 50, link.seq, link.now)
    assert link.pacer.statistics().base_rtt_s == pytest.approx(0.2)
    assert link.pacer.window_bytes == before


def test_least_window_is_not_kept_for_a_delay_that_is_not_ours() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    link.rounds(40)
    link.rate = 2000
    link.rounds(20)
    assert link.pacer.window_bytes == MIN_WINDOW_BYTES
    link.rate, link.foreign_s = 1.25e6, 0.03
    link.rounds(100)
    assert link.pacer.window_bytes >= 0.95 * 1.25e6 * 0.05


def test_packets_leave_evenly_spread_and_one_may_catch_up() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    link.rounds(40)
    pacer, size = link.pacer, link.pacer.packet_bytes
    pacer.sent(size, link.now)
    gap_s = pacer.release_s - link.now
    assert gap_s == 0.0  # it has not sent for long
    pacer.sent(size, link.now)
    gap_s = pacer.release_s - link.now
    assert size / gap_s == pytest.approx(PACE_GAIN * 1.25e6, rel=0.1)
    late = pacer.release_s + 0.75 * gap_s
    pacer.sent(size, late)
    assert pacer.release_s == pytest.approx(late + 0.25 * gap_s)


def _sent_at_once(pacer: Pacer, now: float) -> int:
    """How many packets leave until the next has to wait."""
    count = 0
    while pacer.release_s <= now:
        pacer.sent(pacer.packet_bytes, now)
        count += 1
    return count


def test_what_a_busy_processor_held_up_is_made_up_for() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    link.rounds(40)
    pacer = link.pacer
    _sent_at_once(pacer, link.now)
    gap_s = pacer.packet_bytes / (PACE_GAIN * 1.25e6)
    late = pacer.release_s + 4.5 * gap_s
    pacer.held()
    assert _sent_at_once(pacer, late) == 5
    late = pacer.release_s + 4.5 * gap_s
    assert _sent_at_once(pacer, late) == 2, "it was not held"
    for other_reason in (pacer.blocked, pacer.rests):
        pacer.held()
        other_reason()
        late = pacer.release_s + 4.5 * gap_s
        assert _sent_at_once(pacer, late) == 2


def test_window_that_was_not_needed_for_a_while_starts_anew() -> None:
    link = FluidLink(_pacer(), rate=12.5e6, rtt_s=0.05)
    link.rounds(40)
    before = link.pacer.window_bytes
    link.pacer.sent(1000, link.now + UNUSED_S / 2)
    assert link.pacer.window_bytes == before
    link.pacer.sent(1000, link.now + 2 * UNUSED_S)
    assert link.pacer.window_bytes == INITIAL_WINDOW_BYTES
    assert link.pacer.packet_bytes <= INITIAL_WINDOW_BYTES / 4


def test_start_leaves_twice_as_fast() -> None:
    pacer = _pacer()
    pacer.sample(0.05, 0.0, 0, 1.0)
    for _ in range(2):
        pacer.sent(1400, 1.0)
    assert 1400 / (pacer.release_s - 1.0) == pytest.approx(START_PACE_GAIN * INITIAL_WINDOW_BYTES / 0.05)


def test_fast_link_is_not_paced() -> None:
    link = FluidLink(_pacer(), rate=2 * PACED_BELOW_BYTES_PER_S, rtt_s=0.02)
    link.rounds(60)
    for _ in range(10):
        link.pacer.sent(100_000, link.now)
    assert link.pacer.release_s <= link.now


def test_empty_path_is_looked_for_now_and_then() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    windows = []
    while link.now < 2.5 * BASE_AGE_S:
        link.rounds(1)
        windows.append(link.pacer.window_bytes)
    usual = sorted(windows)[len(windows) // 2]
    dips = sum(after < 0.7 * before for before, after in pairwise(windows[30:]))
    assert dips == 2
    assert windows[-1] == pytest.approx(usual, rel=0.2)


def test_packet_takes_the_link_for_a_few_milliseconds() -> None:
    link = FluidLink(_pacer(), rate=12.5e6, rtt_s=0.05)
    link.rounds(60)
    assert link.pacer.packet_bytes == pytest.approx(12.5e6 * PACKET_TIME_S, rel=0.2)
    link = FluidLink(_pacer(), rate=1e9, rtt_s=0.01)
    link.rounds(60)
    assert link.pacer.packet_bytes == 512 * 1024


def test_figures() -> None:
    pacer = _pacer()
    assert pacer.statistics().base_rtt_s == 0.0
    assert pacer.rtt_s == 0.0
    link = FluidLink(pacer, rate=1.25e6, rtt_s=0.05)
    link.rounds(60)
    figures = pacer.statistics()
    assert figures.window_bytes == pacer.window_bytes
    assert figures.rate_bytes_per_s == pytest.approx(1.25e6, rel=0.1)
    assert figures.rtt_s == pytest.approx(0.05 + link.queue_s, rel=0.1)


def test_rounds_without_a_sample_move_nothing() -> None:
    pacer = _pacer()
    for seq in range(1, 20):
        pacer.blocked()
        pacer.acknowledged(seq, 1000, 1000, seq, now=float(seq))
    assert pacer.window_bytes <= INITIAL_WINDOW_BYTES + 20_000
    assert pacer.statistics().rate_bytes_per_s > 0


def test_modes_of_a_carrier_from_its_first_ack_to_a_probe() -> None:
    link = FluidLink(_pacer(), rate=1.25e6, rtt_s=0.05)
    modes = [link.pacer.statistics().mode]
    for _ in range(250):
        link.rounds(1)
        if (mode := link.pacer.statistics().mode) is not modes[-1]:
            modes.append(mode)
    assert modes[:4] == [Mode.NEW, Mode.STARTING, Mode.SETTLING, Mode.STEERING]
    assert modes[4:7] == [Mode.PROBING, Mode.SETTLING, Mode.STEERING]


def test_path_on_which_no_queue_was_ever_seen_is_probed_and_the_start_goes_on() -> None:
    link = FluidLink(_pacer(8 * MIN_PACKET_BYTES), rate=125e6, rtt_s=0.05)
    link.rounds(1)
    seen = set()
    link.rtt_s += 0.004
    for _ in range(250):
        link.rounds(1)
        seen.add(link.pacer.statistics().mode)
    assert Mode.PROBING_START in seen
    assert seen <= {Mode.STARTING, Mode.PROBING_START}
