"""tunnel.core.path.probes: what is asked and owed, and how a server with many agents spreads their questions."""

from __future__ import annotations

import pytest

from tests.core.pair import TARGET, Pair
from tunnel.core.path.probes import MAX_IDLE_SILENCE_S, NUDGE_S, PingBudget, Probes
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_envelope


@pytest.mark.parametrize(
    ("links", "silence_s"), [(0, 10.0), (1500, 10.0), (3000, 20.0), (5000, 100 / 3), (90000, 60.0)]
)
def test_the_more_links_the_rarer_each_is_asked(links: int, silence_s: float) -> None:
    assert PingBudget(pings_per_s=150.0, links=links).idle_silence_s(10.0) == pytest.approx(silence_s)


def test_silence_that_is_configured_longer_stays() -> None:
    assert PingBudget(pings_per_s=150.0, links=90000).idle_silence_s(90.0) == 90.0


def test_server_tells_the_silence_and_keeps_to_it() -> None:
    server = Probes(10.0, PingBudget(pings_per_s=1.0, links=20))
    server.answer(f.Ping(7))
    assert server.idle_silence_s == 10.0
    assert server.take(0.0) == [f.Pong(7, 20_000)]
    assert server.idle_silence_s == 20.0
    assert server.take(0.0) == []


def test_agent_tells_none() -> None:
    agent = Probes(10.0, None)
    agent.answer(f.Ping(7))
    assert agent.take(0.0) == [f.Pong(7, 0)]


@pytest.mark.parametrize(
    ("told_ms", "silence_s"), [(20_000, 20.0), (0, 12.0), (1, 10.0), (1 << 31, MAX_IDLE_SILENCE_S)]
)
def test_agent_heeds_what_it_is_told_within_bounds(told_ms: int, silence_s: float) -> None:
    agent = Probes(10.0, None)
    agent.answered(f.Pong(1, 12_000), 0.0)
    agent.answered(f.Pong(1, told_ms), 0.0)
    assert agent.idle_silence_s == silence_s


def test_server_does_not_heed_its_peer() -> None:
    server = Probes(10.0, PingBudget(pings_per_s=1.0))
    server.answered(f.Pong(1, 60_000), 0.0)
    assert server.idle_silence_s == 10.0


def test_only_the_newest_question_is_a_round_trip() -> None:
    probes = Probes(10.0, None)
    probes.ask()
    assert probes.take(1.0) == [f.Ping(1)]
    probes.ask()
    assert probes.take(2.0) == [f.Ping(2)]
    assert probes.answered(f.Pong(1), 2.5) is None
    assert probes.answered(f.Pong(2), 2.5) == 0.5
    assert probes.answered(f.Pong(2), 2.6) is None


def test_new_carrier_starts_without_questions() -> None:
    probes = Probes(10.0, None)
    probes.ask()
    probes.answer(f.Ping(1))
    probes.restart()
    assert probes.take(0.0) == []


def _asked(pair: Pair) -> None:
    """The agent's next question, and the answer to it."""
    timer_s = pair.agent.session.next_timer()
    assert timer_s is not None
    pair.now = timer_s
    pair.agent.session.on_timer(pair.now)
    pair.deliver(pair.server, pair.send(pair.agent))
    pair.deliver(pair.agent, pair.send(pair.server))


def test_idle_link_of_many_is_silent_for_longer_until_a_stream_is_open() -> None:
    pair = Pair(ping_budget=PingBudget(pings_per_s=1.0, links=19))  # and this one
    _asked(pair)
    agent, server = pair.agent.session, pair.server.session
    assert agent.next_timer() == pytest.approx(pair.now + 20.0)
    assert server.next_timer() == pytest.approx(pair.now + 21.25)
    pair.now += 18.0
    server.open_stream(TARGET, pair.now, deadline_s=60.0)
    assert server.next_timer() == pytest.approx(pair.now - 6.75)  # a question goes along with OPEN
    server.on_timer(pair.now)
    assert server.next_timer() == pytest.approx(pair.now + 3.75)  # so that a dead link is found soon
    pair.transfer()
    assert agent.next_timer() == pytest.approx(pair.now + NUDGE_S)  # by traffic: with a stream it matters again


def test_only_links_with_a_carrier_count() -> None:
    budget = PingBudget(pings_per_s=1.0)
    pair = Pair(ping_budget=budget)
    assert budget.links == 1
    pair.attach()  # a newer carrier
    assert budget.links == 1
    pair.server.session.detach(pair.server.session.generation, pair.now)
    assert budget.links == 0
    pair.server.session.close(None)
    assert budget.links == 0
    other = Pair(ping_budget=budget)
    other.server.session.close(None)
    other.server.session.close(None)
    assert budget.links == 0


def test_a_packet_without_an_ack_is_asked_about_once_and_decides_nothing() -> None:
    pair = Pair()
    server = pair.server.session
    server.open_stream(TARGET, pair.now, deadline_s=60.0)
    assert len(pair.send(pair.server)) == 1
    assert server.next_timer() == pytest.approx(pair.now + NUDGE_S)
    pair.now += NUDGE_S
    server.on_timer(pair.now)
    (message,) = pair.send(pair.server)
    (frame,) = decode_envelope(message).packet.frames
    assert frame.HasField("ping")
    assert pair.server.events() == []
    assert server.next_timer() == pytest.approx(pair.now + 10.25)  # the question of 7.3, 11.25 s after the last word
    server.on_timer(pair.now + 5)
    assert pair.send(pair.server) == []


def test_who_dialled_asks_once_when_the_traffic_of_open_streams_stops() -> None:
    pair = Pair()
    local, _ = pair.open()
    pair.pass_time(1.5)
    pair.server.session.send_data(local, b"what is nearly the end", pair.now)
    pair.transfer()
    pair.pass_time(0.1)  # acked by now: neither side waits for anything
    stopped_s = pair.now - 0.1
    agent, server = pair.agent.session, pair.server.session
    assert agent.next_timer() == pytest.approx(stopped_s + NUDGE_S)
    assert (server.next_timer() or 0) > stopped_s + 9.0, "it could only wait for a new link"
    pair.now = stopped_s + NUDGE_S
    agent.on_timer(pair.now)
    (message,) = pair.send(pair.agent)
    assert decode_envelope(message).packet.frames[0].HasField("ping")
    pair.deliver(pair.server, [message])
    pair.deliver(pair.agent, pair.send(pair.server))
    assert agent.next_timer() == pytest.approx(pair.now + 10.0), "the answer is no traffic"


def test_who_dialled_asks_once_behind_a_handshake_with_streams_open() -> None:
    pair = Pair()
    pair.open()
    pair.pass_time(5.0)
    pair.detach()
    pair.attach()
    assert pair.agent.session.next_timer() == pytest.approx(pair.now + NUDGE_S)


def test_a_quiet_link_is_not_nudged() -> None:
    pair = Pair()
    pair.open()
    pair.pass_time(3.0)
    assert (pair.agent.session.next_timer() or 0) > pair.now + 2 * NUDGE_S
    assert (pair.server.session.next_timer() or 0) > pair.now + 2 * NUDGE_S
    assert Probes(10.0, None).nudge_s(None, 5.0) is None


def test_a_link_without_streams_is_not_nudged() -> None:
    pair = Pair()
    pair.attach()
    assert pair.agent.session.next_timer() == pytest.approx(pair.now + 10.0)
