"""tunnel.core.streams.scheduler: who goes first, fair turns, and packets that keep to their room."""

from __future__ import annotations

import collections
import itertools
import sys
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.streams.budget import Budget
from tunnel.core.streams.scheduler import (
    CONTROL_FRAME_BYTES,
    HOLD_S,
    LEAST_CUT_BYTES,
    MAX_CONTROL_BYTES,
    MAX_SENT_FRAMES,
    PACKET_OVERHEAD_BYTES,
    TURN_OVERHEAD_BYTES,
    Scheduler,
)
from tunnel.core.streams.stream import CoreStream
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import MAX_OFFSET, encode_packet
from tunnel.core.wire.errors import Code
from tunnel.core.wire.limits import CHUNK_BYTES, MAX_FRAMES, Limits
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import TcpTarget

ACK = f.Ack(MAX_OFFSET - 1, 0xFFFFFFFF, 0xFFFFFFFF)


def _stream(stream_id: int, data: bytes, hint: f.TrafficClass = f.TrafficClass.AUTO) -> CoreStream:
    window = ReceiveWindow(1, 1, Budget(total_bytes=10))
    stream = CoreStream(stream_id, TcpTarget("h", 1), local=True, hint=hint, window=window, deadline_s=0.0)
    stream.open_up()
    stream.send.grant(1 << 24)
    stream.send.push(data)
    return stream


def _take(scheduler: Scheduler, room: int, *, interactive: bool = True, bulk: bool = True) -> list[f.Frame]:
    return scheduler.take(room, 65536, 0.0, interactive=interactive, bulk=bulk)


def test_control_goes_before_keystrokes_before_copies() -> None:
    scheduler = Scheduler()
    bulk, keys = _stream(1, b"b" * 100_000), _stream(3, b"k")
    for stream in (bulk, keys):
        scheduler.add_stream(stream, 0.0)
    scheduler.add_credit(1, 500)
    scheduler.control.append(f.StopSending(5, Code.CANCELLED))
    frames = _take(scheduler, 2000)
    assert [type(frame) for frame in frames] == [f.StopSending, f.Credit, f.Data, f.Data]
    assert [frame.stream_id for frame in frames if isinstance(frame, f.Data)] == [3, 1]


def test_newer_credit_takes_the_place_of_one_that_waits() -> None:
    scheduler = Scheduler()
    scheduler.add_credit(1, 500)
    scheduler.add_credit(1, 900)
    assert _take(scheduler, 2000) == [f.Credit(1, 900)]
    assert not scheduler.has_control


def test_held_frame_waits_for_company_but_not_long() -> None:
    scheduler = Scheduler()
    scheduler.hold(f.Accept(1, "h:1", 9), 5.0)
    scheduler.hold(f.Accept(3, "h:1", 9), 5.0005)
    assert (scheduler.control_frames, scheduler.held_until_s) == (2, 5.0 + HOLD_S)
    scheduler.on_timer(5.0009)
    assert scheduler.has_control is False
    scheduler.control.append(f.Reset(1, Code.CANCELLED))
    frames = _take(scheduler, 2000)
    assert frames == [f.Accept(1, "h:1", 9), f.Accept(3, "h:1", 9), f.Reset(1, Code.CANCELLED)]
    assert (scheduler.control_frames, scheduler.held_until_s) == (0, None)
    scheduler.hold(f.Accept(5, "h:1", 9), 6.0)
    scheduler.on_timer(6.0 + HOLD_S)
    assert scheduler.control == deque([f.Accept(5, "h:1", 9)])
    scheduler.on_timer(99.0)
    assert scheduler.control_frames == 1


def test_what_the_pacer_holds_back_waits() -> None:
    scheduler = Scheduler()
    for stream in (_stream(1, b"b" * 100_000), _stream(3, b"k")):
        scheduler.add_stream(stream, 0.0)
    assert _take(scheduler, 5000, interactive=False, bulk=False) == []
    assert [frame.stream_id for frame in _take(scheduler, 5000, bulk=False) if isinstance(frame, f.Data)] == [3]
    assert scheduler.has_bulk
    assert not scheduler.has_interactive


def test_stream_that_turned_to_bulk_loses_its_place() -> None:
    scheduler = Scheduler()
    stream = _stream(1, b"k")
    scheduler.add_stream(stream, 0.0)
    stream.send.push(b"b" * 100_000)
    assert _take(scheduler, 5000, bulk=False) == []
    assert scheduler.has_bulk


def test_copies_share_the_link_evenly() -> None:
    scheduler = Scheduler()
    streams = [_stream(one, b"x" * 1_000_000) for one in (1, 3, 5)]
    for stream in streams:
        scheduler.add_stream(stream, 0.0)
    for room in itertools.islice(itertools.cycle([1400, 9000, 30_000, 2000]), 60):
        _take(scheduler, room)
    sent = [stream.send.offset for stream in streams]
    assert max(sent) - min(sent) <= 2 * 30_000
    assert min(sent) > 100_000


def test_a_packet_is_one_copys_turn() -> None:
    scheduler = Scheduler()
    for one in (1, 3):
        scheduler.add_stream(_stream(one, b"x" * 1_000_000), 0.0)
    packets = [[frame for frame in _take(scheduler, 300_000) if isinstance(frame, f.Data)] for _ in range(4)]
    most = [collections.Counter(frame.stream_id for frame in frames).most_common(1) for frames in packets]
    assert [stream_id for ((stream_id, _),) in most] == [1, 3, 1, 3]
    assert all(count >= len(frames) - 2 for ((_, count),), frames in zip(most, packets, strict=True))


def test_eight_whole_chunks_make_a_packet() -> None:
    scheduler = Scheduler()
    for one in (1, 3):
        stream = _stream(one, b"")
        for _ in range(9):
            stream.send.push(b"x" * CHUNK_BYTES)
        scheduler.add_stream(stream, 0.0)
    for one in (1, 3):
        frames = _take(scheduler, Limits().max_packet_bytes)
        assert frames == [f.Data(one, b"x" * CHUNK_BYTES)] * 8
        assert len(encode_packet(MAX_OFFSET - 1, ACK, frames)) <= Limits().max_packet_bytes


def test_what_fits_in_part_by_a_sliver_waits_for_the_next_packet() -> None:
    scheduler = Scheduler()
    for one, size in ((1, 4000), (3, LEAST_CUT_BYTES), (5, LEAST_CUT_BYTES - 1)):
        scheduler.add_stream(_stream(one, b"x" * size, f.TrafficClass.INTERACTIVE), 0.0)
    room = PACKET_OVERHEAD_BYTES + 4000 + 2 * TURN_OVERHEAD_BYTES + LEAST_CUT_BYTES - 1
    assert [frame.stream_id for frame in _take(scheduler, room) if isinstance(frame, f.Data)] == [1]
    assert [len(frame.data) for frame in _take(scheduler, room) if isinstance(frame, f.Data)] == [512, 511]


def test_interactive_streams_take_turns_by_frames() -> None:
    scheduler = Scheduler()
    for one in (1, 3):
        scheduler.add_stream(_stream(one, b"x" * 120_000, f.TrafficClass.INTERACTIVE), 0.0)
    frames = _take(scheduler, 300_000)
    assert [frame.stream_id for frame in frames if isinstance(frame, f.Data)][:2] == [1, 3]


def test_end_follows_the_last_byte_and_leaves_the_queue() -> None:
    scheduler = Scheduler()
    stream = _stream(1, b"last")
    stream.send.finish()
    scheduler.add_stream(stream, 0.0)
    scheduler.add_stream(stream, 0.0)
    assert _take(scheduler, 2000) == [f.Data(1, b"last"), f.Fin(1)]
    scheduler.add_stream(stream, 0.0)
    assert _take(scheduler, 2000) == []


def test_stream_that_was_reset_is_forgotten() -> None:
    scheduler = Scheduler()
    streams = [_stream(1, b"k"), _stream(3, b"b" * 100_000)]
    for stream in streams:
        scheduler.add_stream(stream, 0.0)
        scheduler.add_credit(stream.id, 1)
    for stream in streams:
        scheduler.remove_stream(stream)
        scheduler.remove_stream(stream)
    assert _take(scheduler, 2000) == []


def test_openings_given_up_are_forgotten_and_nothing_else() -> None:
    scheduler = Scheduler()
    frames = [f.Open(one, TcpTarget("h", 1), 1, 0) for one in (1, 3, 5)]
    scheduler.control.extend([*frames, f.Reset(3, Code.CANCELLED)])
    scheduler.remove_open(3)
    assert scheduler.control_frames == 3
    scheduler.remove_open(5)
    assert _take(scheduler, 2000) == [frames[0], f.Reset(3, Code.CANCELLED)]
    assert (scheduler.control_frames, scheduler.has_control) == (0, False)


def test_a_queue_of_openings_given_up_has_nothing_to_send() -> None:
    scheduler = Scheduler()
    scheduler.control.extend(f.Open(one, TcpTarget("h", 1), 1, 0) for one in (1, 3))
    for one in (1, 3):
        scheduler.remove_open(one)
    assert (scheduler.control_frames, scheduler.has_control, len(scheduler.control)) == (0, False, 0)


@pytest.mark.parametrize("oldest_first", [True, False])
def test_giving_up_costs_the_same_however_many_wait(*, oldest_first: bool) -> None:
    def lines(count: int) -> float:
        """Returns how many lines of Python the end of each of so many openings takes."""
        scheduler, run = Scheduler(), 0
        ids = range(1, 2 * count, 2)
        scheduler.control.extend(f.Open(one, TcpTarget("h", 1), 1, 0) for one in ids)

        def trace(_frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
            nonlocal run
            run += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for one in ids if oldest_first else reversed(ids):
                scheduler.remove_open(one)
        finally:
            sys.settrace(before)
        return run / count

    assert lines(1024) < 2 * lines(64)


def test_packet_holds_no_more_frames_than_allowed() -> None:
    scheduler = Scheduler()
    for one in range(1, 4 * MAX_FRAMES, 2):
        stream = _stream(one, b"x")
        stream.send.finish()
        scheduler.add_stream(stream, 0.0)
    counts = []
    while frames := _take(scheduler, 1 << 20):
        counts.append(len(frames))
    assert max(counts) <= MAX_SENT_FRAMES
    assert sum(counts) == 4 * MAX_FRAMES
    scheduler.control.extend(f.Reset(1, Code.CANCELLED) for _ in range(MAX_FRAMES + 1))
    for one in range(10):
        scheduler.add_credit(one, 1)
    assert len(_take(scheduler, 1 << 20)) == MAX_CONTROL_BYTES // CONTROL_FRAME_BYTES


big = st.integers(MAX_OFFSET - 100, MAX_OFFSET - 1)
long_texts = st.text("é€x", max_size=300)
controls = st.one_of(
    st.builds(
        f.Open,
        big,
        st.builds(TcpTarget, st.text("h", min_size=1, max_size=253), st.just(65535)),
        st.just(0xFFFFFFFF),
        big,
        st.sampled_from(f.TrafficClass),
        st.builds(
            Principal,
            kind=st.sampled_from(PrincipalKind),
            name=long_texts,
            groups=st.lists(st.text("é€x", max_size=20), max_size=32).map(tuple),
            proof=long_texts,
        ),
        long_texts,
        principal_text=long_texts,
        agent=st.text("a", max_size=63),
        hop=st.just(0xFFFFFFFF),
    ),
    st.builds(f.Accept, big, long_texts, big),
    st.builds(f.Reset, big, st.just(Code.REPLACED), long_texts),
    st.builds(f.GoAway, st.just(Code.REPLACED), long_texts, st.just(0xFFFFFFFF)),
    st.builds(f.StopSending, big, st.just(Code.REPLACED)),
)


@given(
    st.lists(controls, max_size=30),
    st.lists(st.tuples(st.sampled_from([1, 100, 5000, 100_000]), st.booleans()), max_size=10),
    st.integers(4096, 100_000),
    st.integers(0, 20),
)
def test_packets_keep_to_their_room(
    control: list[f.Frame], streams: list[tuple[int, bool]], room: int, credits_due: int
) -> None:
    scheduler = Scheduler()
    scheduler.control.extend(control)
    for one in range(credits_due):
        scheduler.add_credit(MAX_OFFSET - 1 - one, MAX_OFFSET - 1)
    for one, (size, finish) in enumerate(streams):
        stream = _stream(MAX_OFFSET - 1 - one, b"x" * size)
        if finish:
            stream.send.finish()
        scheduler.add_stream(stream, 0.0)
    for _ in range(1000):
        frames = _take(scheduler, room)
        if not frames:
            break
        assert len(encode_packet(MAX_OFFSET - 1, ACK, frames)) <= room
    else:
        pytest.fail("the queues never empty")


def test_control_frame_longer_than_the_room_goes_alone() -> None:
    scheduler = Scheduler()
    scheduler.control.extend([f.Reset(1, Code.REFUSED, "t" * 1000), f.Reset(3, Code.REFUSED, "t" * 1000)])
    scheduler.add_stream(_stream(5, b"k"), 0.0)
    assert [len(_take(scheduler, 1000)) for _ in range(3)] == [1, 1, 1]
