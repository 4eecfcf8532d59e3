"""tunnel.core.path.allowance: whoever sends what moves no bytes is read no faster than they pay for it."""

from __future__ import annotations

import pytest

from protos import tunnel_pb2 as pb
from tests.core.frame_factory import FrameFactory as F
from tests.core.pair import Pair
from tunnel.core.path.allowance import (
    BARRED_S,
    BYTES_EARN,
    DATA_EARNS,
    FLOOD_S,
    FRAMES_BURST,
    FRAMES_PER_S,
    MESSAGE_FRAMES,
    OPEN_EARNS,
    Allowance,
)
from tunnel.core.session import Session
from tunnel.core.wire.errors import Code, RemoteProtocolError
from tunnel.core.wire.faults import LINK_FLOODED
from tunnel.core.wire.limits import KIB, Limits


def spent() -> Allowance:
    """An allowance of which nothing is left at 0.0 s."""
    allowance = Allowance(Limits(), 0.0)
    allowance.received(FRAMES_BURST - MESSAGE_FRAMES, 0, 0.0)
    assert allowance.read_at_s == 0.0
    return allowance


def test_a_burst_is_read_at_once_and_what_follows_as_it_is_paid_for() -> None:
    allowance = spent()
    allowance.received(92, 0, 0.0)
    assert allowance.read_at_s == pytest.approx((92 + MESSAGE_FRAMES) / FRAMES_PER_S)
    allowance.received(0, 0, 10.0)
    assert allowance.read_at_s == 10.0


def test_messages_with_bytes_cost_nothing_but_their_other_frames() -> None:
    allowance = spent()
    for _ in range(10_000):
        allowance.received(8, 8, 0.0)
    assert allowance.read_at_s == 0.0
    allowance.received(12, 8, 0.0)
    assert allowance.read_at_s == pytest.approx(4 / FRAMES_PER_S)


def test_streams_and_bytes_from_here_entitle_the_peer_to_more() -> None:
    allowance = spent()
    allowance.stream_opened()
    allowance.sent(2, 3 * BYTES_EARN)
    allowance.received(OPEN_EARNS + 2 * DATA_EARNS + 3 - MESSAGE_FRAMES, 0, 0.0)
    assert allowance.read_at_s == 0.0
    allowance.received(0, 0, 0.0)
    assert allowance.read_at_s > 0.0


@pytest.mark.parametrize(
    "flood",
    [
        [F.ping(1)],
        [F.ping(one) for one in range(500)],
        [],
        [pb.Frame(stream_id=1)] * 500,
    ],
    ids=["a ping for each message", "many pings", "nothing", "frames of a later build"],
)
def test_a_flood_is_read_at_its_pace_and_then_ended(flood: list[pb.Frame]) -> None:
    allowance = Allowance(Limits(), 0.0)
    session = Session(session_id=b"s" * 16, dialler=False, now=0.0, allowance=allowance)
    generation = session.attach(0.0)
    message = pb.Envelope(packet=pb.Packet(frames=flood)).SerializeToString()
    now, read = 0.0, 0
    ended: RemoteProtocolError | None = None
    while ended is None and now < 60.0:
        try:
            session.receive_message(generation, message, now)
        except RemoteProtocolError as error:
            ended = error
        read += 1
        now = max(now, session.read_at_s) if ended is None else now
    assert ended is not None
    assert (ended.code, ended.fault) == (Code.LIMIT_EXCEEDED, LINK_FLOODED)
    assert FLOOD_S <= now < FLOOD_S + 1.1
    assert read * (len(flood) + MESSAGE_FRAMES) == pytest.approx(FRAMES_BURST + now * FRAMES_PER_S, rel=0.06)
    assert allowance.barred_until_s == now + BARRED_S


def test_a_peer_that_pauses_is_no_flood_and_a_late_reader_makes_no_pause() -> None:
    allowance, now = spent(), 0.0
    for _ in range(20):
        allowance.received(200, 0, now)
        now = allowance.read_at_s + 1.5
        allowance.received(0, 0, now)
    assert allowance.barred_until_s == 0.0
    allowance, now = spent(), 0.0
    with pytest.raises(RemoteProtocolError):  # noqa: PT012 - it takes many
        for _ in range(200):
            allowance.received(200, 0, now)
            now = allowance.read_at_s + 0.05
            allowance.received(20, 0, now)


def test_what_a_build_does_not_know_counts_as_a_message() -> None:
    session = Session(session_id=b"s" * 16, dialler=False, now=0.0, allowance=spent())
    generation = session.attach(0.0)
    session.receive_message(generation, b"", 0.0)
    assert session.read_at_s == pytest.approx(MESSAGE_FRAMES / FRAMES_PER_S)


def test_what_was_used_counts_on_in_the_next_session() -> None:
    limits = Limits(opens_per_s=1.0, opens_burst=1)
    allowance = Allowance(limits, 0.0)
    opens = []
    for _ in range(2):
        session = Session(session_id=b"s" * 16, dialler=False, now=0.0, limits=limits, allowance=allowance)
        packet = pb.Packet(seq=1, frames=[F.open(1)])
        session.receive_message(session.attach(0.0), pb.Envelope(packet=packet).SerializeToString(), 0.0)
        opens.append([type(event).__name__ for event in session.events()])
    assert opens == [["StreamOpened"], ["OpenTurnedDown"]]


def test_decent_peers_are_never_waited_for() -> None:
    """Short streams without an end, each step in a packet of its own, then a copy each way: no time passes for it."""
    pair = Pair()
    both = (pair.server.session, pair.agent.session)
    for one in range(3000):
        ends = pair.open(pair.agent if one % 2 else pair.server)
        first, second = both if not one % 2 else both[::-1]
        for session, stream in zip((first, second), ends, strict=True):
            session.send_data(stream, b"x" * 100, pair.now)
            pair.transfer()
            session.send_fin(stream, pair.now)
            pair.transfer()
        for session, stream in zip((first, second), ends, strict=True):
            session.take(stream)
            session.consumed(stream, 100, pair.now)
        pair.transfer()
        assert max(session.read_at_s for session in both) <= pair.now
    assert pair.server.session.stream_count <= 1  # the last FIN may still wait for its ack
    up, down = pair.open()
    for _ in range(400):
        for session, stream in zip(both, (up, down), strict=True):
            session.send_data(stream, b"x" * 16 * KIB, pair.now)
        pair.transfer()
        for session, stream in zip(both, (up, down), strict=True):
            session.consumed(stream, sum(map(len, session.take(stream))), pair.now)
        pair.transfer()
        assert max(session.read_at_s for session in both) <= pair.now
