"""tunnel.core.egress: what goes out first, and how far beyond the window."""

from __future__ import annotations

import pytest

from tunnel.core.egress import INTERACTIVE_EXTRA, UNACKED_S, UNHEARD_S, Egress
from tunnel.core.path.delivery import Inbox
from tunnel.core.path.pacing import INITIAL_WINDOW_BYTES
from tunnel.core.path.probes import Probes
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.scheduler import Scheduler
from tunnel.core.streams.stream import CoreStream
from tunnel.core.streams.table import StreamTable
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_envelope, decode_packet
from tunnel.core.wire.errors import Code, RemoteProtocolError
from tunnel.core.wire.limits import CHUNK_BYTES, MIB, MIN_PEER_PACKET_BYTES, Limits
from tunnel.core.wire.principal import NOBODY
from tunnel.core.wire.target import TcpTarget


class Sender:
    """An egress with streams that the peer has accepted, and no session around it."""

    def __init__(self) -> None:
        limits = Limits()
        self.scheduler = Scheduler()
        budget = self.budget = Budget(total_bytes=64 * MIB)
        self.table = StreamTable(limits, budget, self.scheduler, [], 0.0, dialler=True, features=frozenset())
        self.probes = Probes(10.0, None)
        self.egress = Egress(limits, budget, self.scheduler, self.table, Inbox(0.002), self.probes)

    def stream(self, hint: f.TrafficClass, size_bytes: int) -> CoreStream:
        stream = self.table.open(TcpTarget("h", 1), 0.0, 9.0, hint, NOBODY, "", b"")
        self.packets()
        self.table.receive(f.Accept(stream.id, "", 1 << 24), 0.0)
        self.table.push(stream, bytes(size_bytes), 0.0)
        return stream

    def packets(self) -> list[f.Packet]:
        messages = iter(lambda: self.egress.next_packet(0.0), None)
        return [decode_packet(decode_envelope(message).packet) for message in messages]

    @property
    def in_flight_bytes(self) -> int:
        return self.egress.outbox.in_flight_bytes


def test_bulk_stops_at_the_window_and_a_keystroke_passes_it_by_a_quarter() -> None:
    sender = Sender()
    sender.stream(f.TrafficClass.BULK, MIB)
    # Pacing is of time, which stands still here: it is let go on.
    while sender.packets():
        sender.egress.pacer.release_s = 0.0
    assert INITIAL_WINDOW_BYTES / 2 < sender.in_flight_bytes <= INITIAL_WINDOW_BYTES
    for _ in range(30):
        sender.stream(f.TrafficClass.INTERACTIVE, 1000)
        sender.packets()
    assert sender.in_flight_bytes > INITIAL_WINDOW_BYTES
    assert sender.in_flight_bytes <= INITIAL_WINDOW_BYTES * INTERACTIVE_EXTRA + 2000
    assert sender.scheduler.has_interactive


def test_a_question_needs_no_room_in_the_window() -> None:
    sender = Sender()
    sender.stream(f.TrafficClass.BULK, MIB)
    while sender.packets():
        sender.egress.pacer.release_s = 0.0
    sender.probes.ask()
    (packet,) = sender.packets()
    assert (packet.seq, [type(frame) for frame in packet.frames]) == (0, [f.Ping])


def test_a_new_carrier_begins_with_what_the_peer_lacks_and_the_least_window() -> None:
    sender = Sender()
    sender.stream(f.TrafficClass.INTERACTIVE, 1000)
    sender.packets()
    sender.stream(f.TrafficClass.INTERACTIVE, 1000)
    last = [packet.seq for packet in sender.packets()][-1]
    sender.egress.restart(last - 1)
    assert [packet.seq for packet in sender.packets()] == [last]
    assert sender.egress.pacer.window_bytes == INITIAL_WINDOW_BYTES


def test_packets_are_no_longer_than_the_peer_takes() -> None:
    sender = Sender()
    sender.egress.set_peer_limits(1, 1)
    sender.stream(f.TrafficClass.INTERACTIVE, 100_000)
    for message in iter(lambda: sender.egress.next_packet(0.0), None):
        assert len(message) <= MIN_PEER_PACKET_BYTES
    assert sender.in_flight_bytes > 0


def heard(sender: Sender, at_s: float) -> None:
    """The peer says something, and acknowledges nothing new."""
    sender.egress.receive_ack(f.Ack(sender.egress.outbox.acked, 0, 0), at_s)


def test_a_peer_that_speaks_and_acknowledges_nothing_is_at_fault() -> None:
    sender = Sender()
    heard(sender, 1000.0)
    sender.stream(f.TrafficClass.INTERACTIVE, 1000)
    sender.packets()
    for second in range(int(UNACKED_S - UNHEARD_S)):  # the silence before counts a little, too
        heard(sender, 1000.0 + second)
    sender.egress.receive_ack(f.Ack(1, 0, 0), 1030.0)
    for second in range(int(UNACKED_S) + 1):
        heard(sender, 1030.0 + second)
    with pytest.raises(RemoteProtocolError, match="nothing was acknowledged for 30 s"):
        heard(sender, 1031.0 + UNACKED_S)


def test_a_new_carrier_has_its_own_time_to_acknowledge() -> None:
    sender = Sender()
    sender.stream(f.TrafficClass.INTERACTIVE, 1000)
    sender.packets()
    for carrier in range(5):
        for second in range(int(UNACKED_S) - 10):
            heard(sender, 1000.0 * carrier + second)
        sender.egress.restart(0)
        sender.packets()


def test_who_stood_still_does_not_blame_the_peer() -> None:
    sender = Sender()
    sender.stream(f.TrafficClass.INTERACTIVE, 1000)
    sender.packets()
    heard(sender, 1.0)
    for _ in range(100):
        heard(sender, 1.0 + 20 * UNACKED_S)


def test_queues_and_kept_packets_are_counted_until_they_are_acknowledged() -> None:
    sender = Sender()
    stream = sender.stream(f.TrafficClass.BULK, 100_000)
    window_bytes = stream.receive.window.size_bytes
    sender.packets()
    outbox = sender.egress.outbox
    assert sender.budget.held_bytes == stream.send.queued + outbox.held_bytes
    assert sender.budget.held_bytes > 100_000
    sender.egress.receive_ack(f.Ack(outbox.last_seq, 0, 0), 1.0)
    assert sender.budget.held_bytes == stream.send.queued > 0
    sender.table.receive(f.StopSending(stream.id, Code.CANCELLED), 1.0)
    assert (sender.budget.held_bytes, sender.budget.used_bytes) == (0, window_bytes)
    sender.packets()
    assert sender.budget.held_bytes == outbox.held_bytes > 0
    sender.egress.close()
    assert sender.budget.held_bytes == 0


def test_queues_follow_the_link_and_the_memory_that_is_left() -> None:
    sender = Sender()
    table, limits = sender.table, Limits()
    streams = [sender.stream(f.TrafficClass.BULK, 1) for _ in range(64)]
    for stream in streams:
        table.push(stream, b"x", 0.0)
    sender.egress.restart(0)
    first = streams[0]
    assert table.room(first) == limits.min_session_send_queue_bytes // 64 - 1, "nothing is known of the link yet"
    table.link_bytes = 16 * MIB
    assert table.room(first) == 5 * CHUNK_BYTES, "256 KiB, in whole chunks"
    table.link_bytes = 1 << 40
    assert table.room(first) == 9 * CHUNK_BYTES, "512 KiB"
    first.send.credit = first.send.offset + 1000
    assert table.room(first) == 3 * CHUNK_BYTES, "what waits for credit, and 1000 bytes"
    sender.budget.hold(8 * MIB)
    assert table.room(first) == limits.min_send_queue_bytes - 1, "the credit alone is less"
    assert table.room(streams[1]) == 9 * CHUNK_BYTES, "it has credit"
    sender.budget.hold(40 * MIB)
    assert table.room(streams[1]) == limits.min_send_queue_bytes - 1
