"""Every sequenced packet arrives once and in order, whatever becomes of carriers (PROTO 4).

The outbox keeps what was sent until it is acknowledged and sends it again on a new carrier; the inbox counts what
arrived and says when an ack is due. Neither knows what is in a packet.
"""

from __future__ import annotations

from tunnel.core.wire.errors import RemoteProtocolError
from tunnel.core.wire.frames import Ack

ACK_EVERY_PACKETS = 2
"""An ack goes out at once for every second packet (RFC 9000 13.2.2); a single one waits a little for something to
ride on.
"""
ACK_AT_BYTES = 1400
"""Packets that have less than this together wait as a single one does: what opens and ends streams needs no ack of its
own, while nothing that is paced by acks comes in packets so small.
"""
KEPT_PACKET_BYTES = 300
"""What Python adds to a packet that is kept: the objects around its bytes."""


def clock_us(now: float) -> int:
    """Returns a time as it travels: in microseconds, modulo 2^32."""
    return int(now * 1e6) & 0xFFFFFFFF


class SentPacket:
    """A packet that waits for its ack."""

    __slots__ = ("in_flight_bytes", "message", "sent_s", "seq")

    def __init__(self, seq: int, message: bytes, sent_s: float, in_flight_bytes: int) -> None:
        """`in_flight_bytes` is what was on its way when the packet was sent, itself included."""
        self.seq = seq
        self.message = message
        self.sent_s = sent_s
        self.in_flight_bytes = in_flight_bytes


class Outbox:
    """Packets sent and not yet acknowledged.

    Invariant: `_kept` has all unacknowledged packets by seq, without a gap: those behind `acked` and up to `_sent` were
    sent on this carrier, the rest is still to be sent on it.
    """

    __slots__ = ("_kept", "_resend_bytes", "_sent", "acked", "in_flight_bytes", "last_seq")

    def __init__(self) -> None:
        self.last_seq = 0
        self.acked = 0
        self.in_flight_bytes = 0
        """Bytes sent on this carrier and not acknowledged."""
        self._resend_bytes = 0
        """Bytes of an earlier carrier that are still to be sent on this one."""
        # No deque: an empty one takes 600 bytes, and each of thousands of idle sessions has an outbox.
        self._kept: dict[int, SentPacket] = {}
        self._sent = 0
        """Newest packet that was sent on this carrier, or that its peer had before."""

    @property
    def kept_bytes(self) -> int:
        """Returns how many bytes of packets are held because they may have to be sent again."""
        return self.in_flight_bytes + self._resend_bytes

    @property
    def held_bytes(self) -> int:
        """Returns how much memory the kept packets take."""
        return self.kept_bytes + KEPT_PACKET_BYTES * (self.last_seq - self.acked)

    @property
    def unacked_packets(self) -> int:
        """Returns how many packets were sent on this carrier and are not acknowledged."""
        return self._sent - self.acked

    @property
    def has_resends(self) -> bool:
        """Returns whether packets of an earlier carrier are still to be sent on this one.

        Nothing newer may pass them.
        """
        return self._sent < self.last_seq

    def next_seq(self) -> int:
        """Takes the next sequence number, for the packet that is being built, and returns it."""
        self.last_seq += 1
        return self.last_seq

    def sent(self, seq: int, message: bytes, now: float) -> None:
        """Keeps a packet that goes out now."""
        self.in_flight_bytes += len(message)
        self._kept[seq] = SentPacket(seq, message, now, self.in_flight_bytes)
        self._sent = seq

    def resend(self, now: float) -> bytes:
        """Returns the next packet of an earlier carrier, unchanged: the peer ignores the old ack in it (PROTO 4.4)."""
        self._sent += 1
        packet = self._kept[self._sent]
        packet.sent_s = now
        self.in_flight_bytes += len(packet.message)
        self._resend_bytes -= len(packet.message)
        packet.in_flight_bytes = self.in_flight_bytes
        return packet.message

    def acknowledge(self, seq: int) -> SentPacket | None:
        """Takes an ack; returns the newest packet it covers, or None when it says nothing new.

        Raises:
            RemoteProtocolError: it covers what was never sent on this carrier.
        """
        if seq <= self.acked:
            return None
        if seq > self._sent:
            raise RemoteProtocolError(f"ack {seq}, but only {self._sent} was sent")
        packet = None
        for covered in range(self.acked + 1, seq + 1):
            packet = self._kept.pop(covered)
            self.in_flight_bytes -= len(packet.message)
        self.acked = seq
        return packet

    @property
    def oldest_sent_s(self) -> float | None:
        """Returns when the oldest packet that waits for its ack was sent on this carrier; None when none waits."""
        return self._kept[self.acked + 1].sent_s if self.acked < self._sent else None

    def may_resume_at(self, peer_received: int) -> bool:
        """Returns whether a peer that has every packet up to this one can go on: all that it lacks is kept here."""
        return self.acked <= peer_received <= self.last_seq

    def restart(self, peer_received: int) -> None:
        """Begins on a new carrier: drops what the peer has, and queues the rest to be sent again."""
        self._resend_bytes += self.in_flight_bytes
        for seq in range(self.acked + 1, peer_received + 1):
            self._resend_bytes -= len(self._kept.pop(seq).message)
        self.acked = self._sent = peer_received
        self.in_flight_bytes = 0

    def clear(self) -> None:
        """Drops every packet: the session is over, and nothing will be sent again."""
        self._kept.clear()
        self.acked = self._sent = self.last_seq
        self.in_flight_bytes = self._resend_bytes = 0


class Inbox:
    """Counts the packets that arrived, and what the peer has yet to be told of them."""

    __slots__ = (
        "_max_ack_delay_s", "_newest_s", "_unacked", "_unacked_bytes", "ack_now", "ack_timer_s", "last_received",
    )  # fmt: skip

    def __init__(self, max_ack_delay_s: float) -> None:
        self.last_received = 0
        self.ack_now = False
        """Whether an ack is due, and waits for nothing but the carrier."""
        self.ack_timer_s: float | None = None
        """When an ack becomes due; None when it is due already, or when the peer knows everything."""
        self._max_ack_delay_s = max_ack_delay_s
        self._unacked = 0
        self._unacked_bytes = 0
        self._newest_s = 0.0

    def receive(self, seq: int, size_bytes: int, now: float) -> None:
        """Counts a sequenced packet.

        Raises:
            RemoteProtocolError: it is not the next one; carriers keep order, so the peer lost count or lies.
        """
        if seq != self.last_received + 1:
            raise RemoteProtocolError(f"packet {seq} after {self.last_received}")
        self.last_received = seq
        self._unacked += 1
        self._unacked_bytes += size_bytes
        self._newest_s = now
        if self._unacked >= ACK_EVERY_PACKETS and self._unacked_bytes >= ACK_AT_BYTES:
            self.ack_now = True
            self.ack_timer_s = None
        elif self._unacked == 1:
            self.ack_timer_s = now + self._max_ack_delay_s

    def on_timer(self, now: float) -> None:
        """Makes the ack of a single packet due once it has waited long enough."""
        if self.ack_timer_s is not None and self.ack_timer_s <= now:
            self.ack_now = True
            self.ack_timer_s = None

    def take_ack(self, now: float) -> Ack:
        """Returns the ack for a packet that goes out now. After it nothing is left to tell."""
        delay_us = int(max(0.0, now - self._newest_s) * 1e6) if self._unacked else 0
        self.restart()
        return Ack(self.last_received, min(delay_us, 0xFFFFFFFF), clock_us(self._newest_s))

    def restart(self) -> None:
        """Notes that the peer knows everything: an ack goes out, or a handshake has just told it."""
        self.ack_now = False
        self.ack_timer_s = None
        self._unacked = self._unacked_bytes = 0
