"""What the core promises of real links, with numbers, in virtual time.

The model is in tests/support/simulation.py: a carrier swallows megabytes ahead of its link, so every queue is
our doing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.core.traffic import App, Echo, Pinger, Sink, Source, Stalled, Traffic
from tests.support.simulation import Host, Simulation
from tunnel.core import events as ev
from tunnel.core.link import Link
from tunnel.core.path.pacing import MIN_WINDOW_BYTES, Pacer
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost
from tunnel.core.wire.limits import KIB, MIB, Limits

MBIT = 1e6 / 8


def _network(mbit: float, rtt_s: float, *, limits: Limits | None = None) -> tuple[Simulation, Traffic]:
    sim = Simulation(rate_bytes_per_s=mbit * MBIT, delay_s=rtt_s / 2, limits=limits)
    return sim, Traffic(sim)


def _bulk(sim: Simulation, traffic: Traffic, *, up: bool = False) -> Sink:
    """A copy without end; `up` sends it from the side that opened, the server."""
    sink = Sink()
    traffic.open(sim.server, *((Source(), sink) if up else (sink, Source())))
    return sink


def _rate(sim: Simulation, sink: App, duration_s: float) -> float:
    """Bytes per second that a sink receives from now on."""
    before = sink.received_bytes
    sim.run(duration_s)
    return (sink.received_bytes - before) / duration_s


def _set_rate(sim: Simulation, mbit: float) -> None:
    for path in sim.paths:
        path.rate_bytes_per_s = mbit * MBIT


def _set_rtt(sim: Simulation, rtt_s: float) -> None:
    for path in sim.paths:
        path.delay_s = rtt_s / 2


@pytest.mark.parametrize("up", [False, True])
def test_one_stream_fills_a_gigabit_at_50_ms(up: bool) -> None:
    sim, traffic = _network(1000, 0.05)
    sink = _bulk(sim, traffic, up=up)
    sim.run(1.0)
    assert _rate(sim, sink, 2.0) >= 0.9 * 1000 * MBIT
    assert sink.received_bytes >= 0.8 * 1000 * MBIT * 3.0


def test_one_stream_fills_four_gigabits_of_a_data_centre() -> None:
    sim, traffic = _network(4000, 0.0004)
    sink = _bulk(sim, traffic)
    assert _rate(sim, sink, 1.0) >= 0.9 * 4000 * MBIT


def _beside_bulk(sim: Simulation, traffic: Traffic, ups: list[bool], *, settle_s: float) -> tuple[Pinger, list[Sink]]:
    sinks = [_bulk(sim, traffic, up=up) for up in ups]
    pinger = Pinger()
    traffic.open(sim.server, pinger, Echo())
    sim.run(settle_s)
    for sink in sinks:
        sink.received_bytes = 0
    pinger.round_trips.clear()
    return pinger, sinks


def _with_router_queue(sim: Simulation) -> None:
    for path in sim.paths:
        path.buffer_bytes = MIB


@pytest.mark.parametrize("up", [False, True])
def test_keystrokes_beside_a_copy_on_5_mbit(up: bool) -> None:
    sim, traffic = _network(5, 0.05)
    _with_router_queue(sim)
    pinger, (sink,) = _beside_bulk(sim, traffic, [up], settle_s=2.0)
    sim.run(20.0)
    assert pinger.percentile(0.5) < 0.05 * 1.5
    assert pinger.percentile(1.0) < 0.05 * 2
    assert sink.received_bytes >= 0.9 * 5 * MBIT * 20.0


def test_without_pacing_the_same_link_is_seconds_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation does show what pacing is there for."""
    monkeypatch.setattr(Pacer, "window_bytes", 32 * MIB)
    monkeypatch.setattr(Pacer, "sent", lambda pacer, count, now: None)
    sim, traffic = _network(5, 0.05)
    _with_router_queue(sim)
    pinger, _ = _beside_bulk(sim, traffic, [False], settle_s=5.0)
    sim.run(10.0)
    assert pinger.percentile(0.5) > 1.0


def test_keystrokes_beside_copies_both_ways_on_5_mbit() -> None:
    sim, traffic = _network(5, 0.05)
    _with_router_queue(sim)
    pinger, sinks = _beside_bulk(sim, traffic, [False, True], settle_s=2.0)
    sim.run(20.0)
    assert pinger.percentile(0.5) < 0.05 * 1.5
    assert pinger.percentile(1.0) < 0.05 * 2
    # Neither direction starves the other, though each one's acks wait in the other's queue, and come in clumps.
    assert min(sink.received_bytes for sink in sinks) >= 0.85 * 5 * MBIT * 20.0


def test_1_mbit_and_200_ms_is_usable() -> None:
    sim, traffic = _network(1, 0.2)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=3.0)
    sim.run(20.0)
    assert pinger.percentile(0.5) < 0.3
    assert pinger.percentile(1.0) < 0.4
    assert sink.received_bytes >= 0.8 * 1 * MBIT * 20.0


def test_256_kbit_and_300_ms_still_answers() -> None:
    sim, traffic = _network(0.256, 0.3)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=5.0)
    sim.run(20.0)
    assert pinger.percentile(1.0) < 0.6
    assert sink.received_bytes >= 0.75 * 0.256 * MBIT * 20.0


def test_jitter_of_a_radio_link_is_not_taken_for_a_queue() -> None:
    sim, traffic = _network(10, 0.05)
    dice = random.Random(1)

    def jitter() -> None:
        for path in sim.paths:
            path.delay_s = 0.025 + dice.random() * 0.02
        sim.at(0.002, jitter)

    jitter()
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=4.0)
    sim.run(10.0)
    assert sink.received_bytes >= 0.8 * 10 * MBIT * 10.0
    assert pinger.percentile(0.5) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_processors_that_are_busy_elsewhere_do_not_pass_for_a_slow_link(seed: int) -> None:
    draw = random.Random(seed)
    sim, traffic = _network(100, 0.0001)
    sink = _bulk(sim, traffic)
    sim.run(0.3)

    def rest(host: Host) -> None:
        host.frozen = True
        sim.at(draw.uniform(0.02, 0.2), lambda: turn(host))

    def turn(host: Host) -> None:
        sim.thaw(host)
        sim.at(draw.uniform(0.001, 0.005), lambda: rest(host))

    for host in sim.hosts:
        rest(host)
    assert _rate(sim, sink, 10.0) >= 0.6e6


def test_first_second_of_a_copy_does_not_flood_the_link() -> None:
    sim, traffic = _network(5, 0.05)
    pinger, _ = _beside_bulk(sim, traffic, [False], settle_s=0.0)
    sim.run(1.0)
    assert pinger.percentile(1.0) < 0.2


def test_link_that_slows_down_and_speeds_up_finds_its_rate() -> None:
    sim, traffic = _network(10, 0.02)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=3.0)
    _set_rate(sim, 1)
    sim.run(1.0)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 3.0) >= 0.85 * 1 * MBIT
    assert pinger.percentile(1.0) < 0.15
    _set_rate(sim, 10)
    sim.run(1.0)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 3.0) >= 0.9 * 10 * MBIT
    assert pinger.percentile(1.0) < 0.08


def test_least_window_grows_again_on_a_path_of_a_fraction_of_a_millisecond() -> None:
    sim, traffic = _network(0.25, 0.0002)
    sink = _bulk(sim, traffic)
    sim.run(5.0)
    assert sim.agent.session.statistics().pacing.window_bytes == MIN_WINDOW_BYTES
    _set_rate(sim, 200)
    sim.run(3.0)
    assert _rate(sim, sink, 1.0) >= 0.9 * 200 * MBIT


def test_path_that_gets_longer_and_shorter_finds_its_rate() -> None:
    sim, traffic = _network(10, 0.02)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=3.0)
    _set_rtt(sim, 0.2)
    sim.run(2.0)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 3.0) >= 0.9 * 10 * MBIT
    assert pinger.percentile(1.0) < 0.2 * 1.5
    _set_rtt(sim, 0.02)
    sim.run(2.0)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 3.0) >= 0.9 * 10 * MBIT
    assert pinger.percentile(1.0) < 0.08


@pytest.mark.parametrize(("up", "mbit", "rtt_s", "share"), [(False, 10, 0.2, 0.94), (True, 5, 0.3, 0.9)])
def test_looks_at_the_empty_path_cost_a_long_copy_next_to_nothing(
    up: bool, mbit: float, rtt_s: float, share: float
) -> None:
    sim, traffic = _network(mbit, rtt_s)
    pinger, (sink,) = _beside_bulk(sim, traffic, [up], settle_s=3.0)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 25.0) >= share * mbit * MBIT
    assert pinger.percentile(0.99) < 1.2 * rtt_s


@pytest.mark.parametrize(
    ("mbit", "before_s", "after_s", "up"),
    [(10, 0.002, 0.1, False), (10, 0.02, 0.3, True), (5, 0.02, 0.4, False), (1, 0.02, 0.2, True)],
)
def test_path_that_gets_many_times_longer_is_filled_within_a_dozen_rounds(
    mbit: float, before_s: float, after_s: float, up: bool
) -> None:
    sim, traffic = _network(mbit, before_s)
    pinger, (sink,) = _beside_bulk(sim, traffic, [up], settle_s=3.0)
    _set_rtt(sim, after_s)
    sim.run(14 * after_s)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 10.0) >= 0.8 * mbit * MBIT
    assert pinger.percentile(0.99) < 1.5 * after_s


def test_path_that_gets_longer_while_nothing_is_sent_is_no_queue() -> None:
    sim, traffic = _network(100, 0.0004)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=2.0)
    sim.server.session.reset_stream(sink.stream, Code.CANCELLED)
    sim.run(1.0)
    _set_rtt(sim, 0.05)
    sim.run(1.0)
    sink = _bulk(sim, traffic)
    sim.run(1.0)
    pinger.round_trips.clear()
    assert _rate(sim, sink, 2.0) >= 0.9 * 100 * MBIT
    assert pinger.percentile(1.0) < 0.05 * 2


def test_link_that_slowed_down_between_two_copies_is_not_flooded() -> None:
    sim, traffic = _network(1000, 0.05)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=2.0)
    sim.server.session.reset_stream(sink.stream, Code.CANCELLED)
    sim.run(2.0)
    _set_rate(sim, 10)
    pinger.round_trips.clear()
    _bulk(sim, traffic)
    sim.run(5.0)
    assert pinger.percentile(1.0) < 0.2


def test_bulk_leaves_evenly_and_a_keystroke_at_once() -> None:
    sim, traffic = _network(1, 0.2)
    pinger, _ = _beside_bulk(sim, traffic, [True], settle_s=5.0)
    gaps: list[float] = []
    last = 0.0
    sent = sim.server.session.statistics().packets_sent
    while len(gaps) < 100:
        sim.run(0.001)
        now_sent = sim.server.session.statistics().packets_sent
        if now_sent > sent:
            gaps.append(sim.now - last)
            last, sent = sim.now, now_sent
    assert max(gaps[1:]) < 0.1  # a round trip's window does not leave at once and then nothing for 0.2 s
    assert pinger.percentile(0.99) < 0.3


def _measured_beside(stalled: int) -> tuple[float, float, int]:
    sim, traffic = _network(100, 0.02)
    for _ in range(stalled):
        traffic.open(sim.server, Stalled(), Source())
    sim.run(5.0)
    pinger, (sink,) = _beside_bulk(sim, traffic, [False], settle_s=2.0)
    rate = _rate(sim, sink, 3.0)
    # The median lies in one place or another of a packet's 4 ms, by the beat of the two alone.
    return rate, pinger.percentile(0.95), sim.server.session.statistics().budget_used_bytes


def test_a_thousand_stalled_readers_stay_in_their_budget_and_slow_nobody() -> None:
    alone_rate, alone_echo_s, _ = _measured_beside(0)
    rate, echo_s, budget = _measured_beside(1000)
    assert rate >= 0.97 * alone_rate
    assert echo_s <= 1.1 * alone_echo_s
    assert budget <= 80 * MIB


def test_what_stalled_readers_hold_is_within_the_windows_granted() -> None:
    sim, traffic = _network(1000, 0.002)
    for _ in range(1000):
        traffic.open(sim.server, Stalled(), Source())
    sim.run(10.0)
    session = sim.server.session
    held = [session.stream(2 * one + 2) for one in range(1000)]
    received = sum(stream.receive.queued for stream in held if stream is not None)
    figures = session.statistics()
    assert received == figures.budget_used_bytes - figures.budget_held_bytes < 80 * MIB
    sender = sim.agent.session.statistics()
    # Of what waits to be sent a tenth of the budget, and what a source writes at once: as much as it likes, here.
    assert sender.budget_held_bytes < 10 * MIB + 1000 * 64 * KIB


def test_thousands_of_streams_over_a_link_cut_fifty_times_lose_nothing() -> None:
    dice = random.Random(7)
    sim, traffic = _network(200, 0.02)
    pairs: list[tuple[Source, Sink]] = []

    def start() -> None:
        for _ in range(60):
            source, sink = Source(dice.choice([0, 1, 100, 5000, 70_000, 400_000])), Sink()
            pairs.append((source, sink))
            one_way = dice.random() < 0.5
            host = dice.choice([sim.agent, sim.server])
            traffic.open(host, *((source, sink) if one_way else (sink, source)), deadline_s=60.0)

    def cut() -> None:
        sim.cut()
        sim.at(dice.random() * 0.1, sim.connect)

    for one in range(50):
        sim.at(one * 0.25, start)
        sim.at(one * 0.25 + dice.random() * 0.25, cut)
    sim.run(120.0, until=lambda: len(pairs) == 3000 and all(a.over and b.over for a, b in pairs))

    assert sim.epoch >= 100
    assert all(source.over and sink.over and source.error is sink.error is None for source, sink in pairs)
    assert all(sink.received_bytes == source.total_bytes and sink.crc == source.sent_crc for source, sink in pairs)
    for host in sim.hosts:
        statistics = host.session.statistics()
        assert (statistics.streams, statistics.budget_used_bytes) == (0, 0)


@pytest.mark.parametrize("busy", [False, True])
def test_black_hole_is_noticed_within_15_s_by_both_and_survived(busy: bool) -> None:
    sim, traffic = _network(10, 0.05)
    sink = _bulk(sim, traffic) if busy else Sink()
    pinger = Pinger()
    traffic.open(sim.server, pinger, Echo())
    sim.run(3.0)
    for path in sim.paths:
        path.black_hole = True
    start = sim.now
    assert sim.run(16.0, until=lambda: all(host.session.link is Link.SUSPENDED for host in sim.hosts))
    assert sim.now - start <= 15.1
    assert all(any(isinstance(event, ev.CarrierDead) for event in host.events) for host in sim.hosts)

    sim.run(60.0)
    for path in sim.paths:
        path.black_hole = False
    echoes = len(pinger.round_trips)
    sim.connect()
    sim.run(2.0)
    assert len(pinger.round_trips) > echoes + 10
    assert not pinger.over
    assert not busy or _rate(sim, sink, 2.0) > 0.8 * 10 * MBIT


def test_idle_link_stays_up_on_a_ping_each_ten_seconds() -> None:
    sim, _ = _network(10, 0.05)
    sim.run(300.0)
    assert [host.session.link for host in sim.hosts] == [Link.ATTACHED] * 2
    assert sum(isinstance(event, ev.PeerSuspect) for event in sim.agent.events) == 29
    assert sim.server.events == []


def test_host_that_stood_still_finds_its_link_alive() -> None:
    sim, traffic = _network(10, 0.05)
    pinger = Pinger()
    traffic.open(sim.server, pinger, Echo())
    sim.run(1.0)
    sim.agent.frozen = True
    sim.run(12.0)
    assert sim.server.session.link is Link.ATTACHED
    sim.thaw(sim.agent)
    echoes = len(pinger.round_trips)
    sim.run(1.0)
    assert len(pinger.round_trips) > echoes + 5
    assert [host.session.link for host in sim.hosts] == [Link.ATTACHED] * 2


def test_host_that_stood_still_too_long_resumes_over_a_new_carrier() -> None:
    sim, traffic = _network(10, 0.05)
    pinger = Pinger()
    traffic.open(sim.server, pinger, Echo())
    sim.run(1.0)
    sim.agent.frozen = True
    sim.run(60.0)
    assert sim.server.session.link is Link.SUSPENDED
    sim.agent.frozen = False
    sim.agent.backlog.clear()
    sim.cut()
    sim.connect()
    echoes = len(pinger.round_trips)
    sim.run(1.0)
    assert len(pinger.round_trips) > echoes + 5


def test_streams_end_when_the_resume_window_is_over() -> None:
    sim, traffic = _network(10, 0.05)
    apps: list[App] = [Pinger(), Sink(), Source(), Echo()]
    traffic.open(sim.server, apps[0], apps[3])
    traffic.open(sim.agent, apps[1], apps[2])
    sim.run(1.0)
    sim.cut()
    sim.run(119.0)
    assert not any(app.over for app in apps)
    sim.run(2.0)
    assert all(app.over and isinstance(app.error, SessionLost) for app in apps)
    for host in sim.hosts:
        assert isinstance(host.events[-1], ev.SessionClosed)
        assert host.session.statistics().budget_used_bytes == 0
    with pytest.raises(OpenRefused) as caught:
        traffic.open(sim.server, Sink(), Source())
    assert caught.value.code is Code.SESSION_LOST


def test_opens_wait_for_the_link_to_come_back() -> None:
    sim, traffic = _network(10, 0.05)
    sim.cut()
    apps = [Pinger() for _ in range(10)]
    for app in apps:
        traffic.open(sim.server, app, Echo(), deadline_s=10.0)
    sim.run(8.0)
    assert not any(app.over or app.round_trips for app in apps)
    sim.connect()
    sim.run(1.0)
    assert all(app.round_trips for app in apps)


@pytest.mark.parametrize(
    ("announced", "code"), [(False, Code.AGENT_AWAY), (True, Code.DEADLINE)], ids=["waiting", "on its way"]
)
def test_opens_end_at_their_deadline_when_it_does_not(announced: bool, code: Code) -> None:
    sim, traffic = _network(10, 0.05)
    app = Sink()
    actions: list[Callable[[], None]] = [sim.cut, lambda: traffic.open(sim.server, app, Source(), deadline_s=10.0)]
    for action in reversed(actions) if announced else actions:
        action()
    assert not sim.run(9.99, until=lambda: app.over)
    assert sim.run(0.02, until=lambda: app.over)
    assert isinstance(app.error, OpenRefused)
    assert app.error.code is code
    sim.connect()
    sim.run(1.0)
    assert [host.session.stream_count for host in sim.hosts] == [0, 0]
