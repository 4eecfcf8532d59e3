"""tunnel.core.streams.orphans: streams that their users have left, and that nobody reads (PROTO 5.12)."""

from __future__ import annotations

import pytest

from tests.core.pair import End, Pair
from tunnel.core import events as ev
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.errors import Code, StreamReset
from tunnel.core.wire.limits import KIB, Limits

AFTER_S = 40.0
SHORT = Limits(orphan_after_s=AFTER_S)
LONG = Limits(orphan_after_s=1e9)


def left(pair: Pair, size_bytes: int, *, stop_first: bool = False) -> tuple[CoreStream, CoreStream]:
    """A stream whose opener, at the server, sent so much and went; nobody reads at the agent."""
    local, remote = pair.open(pair.server)
    session = pair.server.session
    session.send_data(local, bytes(size_bytes), pair.now)
    if stop_first:
        session.stop_sending(local, Code.CANCELLED, pair.now)
    session.send_fin(local, pair.now)
    if not stop_first:
        session.stop_sending(local, Code.CANCELLED, pair.now)
    pair.transfer()
    for end in (pair.agent, pair.server):
        end.events()
    return local, remote


def read(pair: Pair, remote: CoreStream, count: int) -> None:
    pair.agent.session.take(remote)
    pair.agent.session.consumed(remote, count, pair.now)
    pair.transfer()


def ends(end: End) -> list[ev.StreamEnded]:
    return [event for event in end.events() if isinstance(event, ev.StreamEnded)]


@pytest.mark.parametrize("stop_first", [False, True])
def test_what_the_other_end_does_not_read_is_given_up_by_the_side_that_was_left(stop_first: bool) -> None:
    pair = Pair(server_limits=SHORT, agent_limits=LONG)
    local, _ = left(pair, 300 * KIB, stop_first=stop_first)
    pair.pass_time(AFTER_S - 1)
    assert pair.server.session.stream(local.id) is local
    pair.pass_time(AFTER_S / 2 + 1)
    (mine,), (other,) = ends(pair.server), ends(pair.agent)
    for ended in (mine, other):
        assert isinstance(ended.error, StreamReset)
        assert ended.error.code is Code.ORPHANED
    pair.pass_time(1)
    assert [end.session.statistics().budget_used_bytes for end in (pair.agent, pair.server)] == [0, 0]


def test_the_reader_gives_it_up_when_all_of_it_has_arrived() -> None:
    pair = Pair(server_limits=LONG, agent_limits=SHORT)
    local, remote = left(pair, 100 * KIB)
    pair.agent.session.take(remote)  # by a socket that does not get rid of it
    assert pair.agent.session.stream(local.id) is remote
    pair.pass_time(AFTER_S * 1.5)
    (ended,) = ends(pair.agent)
    assert isinstance(ended.error, StreamReset)
    assert ended.error.code is Code.ORPHANED


def test_a_slow_reader_is_waited_for() -> None:
    pair = Pair(server_limits=SHORT, agent_limits=SHORT)
    local, remote = left(pair, 2500 * KIB)
    for _ in range(20):
        pair.pass_time(AFTER_S * 0.8)
        read(pair, remote, min(150 * KIB, remote.receive.waiting_bytes))
        if pair.agent.session.stream(local.id) is None:
            break
    pair.pass_time(1)
    assert [ended.error for end in (pair.agent, pair.server) for ended in ends(end)] == [None, None]
    assert remote.receive.window.received == 2500 * KIB


def test_a_stream_with_nothing_to_carry_is_left_alone() -> None:
    pair = Pair(server_limits=SHORT, agent_limits=SHORT)
    local, remote = pair.open(pair.server)
    pair.server.session.stop_sending(local, Code.CANCELLED, pair.now)
    pair.pass_time(5 * AFTER_S)
    assert pair.agent.session.stream(remote.id) is remote
    assert pair.server.session.stream(local.id) is local


def test_a_user_that_is_there_may_wait_for_ever() -> None:
    pair = Pair(server_limits=SHORT, agent_limits=SHORT)
    local, _ = pair.open(pair.server)
    pair.server.session.send_data(local, bytes(300 * KIB), pair.now)
    pair.server.session.send_fin(local, pair.now)
    pair.pass_time(5 * AFTER_S)
    assert pair.server.session.stream(local.id) is local


def test_one_that_goes_leaves_the_others_their_time() -> None:
    pair = Pair(server_limits=SHORT, agent_limits=LONG)
    first, _ = left(pair, 300 * KIB)
    pair.pass_time(AFTER_S / 2)
    second, _ = left(pair, 300 * KIB)
    pair.server.session.reset_stream(first, Code.CANCELLED)
    assert pair.server.session._streams.orphans.due_s is not None
    pair.pass_time(AFTER_S * 0.75)
    assert pair.server.session.stream(second.id) is second
    pair.pass_time(AFTER_S / 2)
    assert pair.server.session.stream(second.id) is None
    assert pair.server.session._streams.orphans.due_s is None
