"""tunnel.core.egress: what goes out first, and how far beyond the window."""

from __future__ import annotations

from tunnel.core.egress import INTERACTIVE_EXTRA, Egress
from tunnel.core.path.delivery import Inbox
from tunnel.core.path.pacing import INITIAL_WINDOW_BYTES
from tunnel.core.path.probes import Probes
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.scheduler import Scheduler
from tunnel.core.streams.stream import CoreStream
from tunnel.core.streams.table import StreamTable
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_envelope, decode_packet
from tunnel.core.wire.limits import MIB, MIN_PEER_PACKET_BYTES, Limits
from tunnel.core.wire.principal import NOBODY
from tunnel.core.wire.target import TcpTarget


class Sender:
    """An egress with streams that the peer has accepted, and no session around it."""

    def __init__(self) -> None:
        limits = Limits()
        self.scheduler = Scheduler()
        budget = Budget(total_bytes=64 * MIB)
        self.table = StreamTable(limits, budget, self.scheduler, [], 0.0, dialler=True, features=frozenset())
        self.probes = Probes(10.0, None)
        self.egress = Egress(limits, self.scheduler, self.table, Inbox(0.002), self.probes)

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
