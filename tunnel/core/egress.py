"""The sending side of a session: it builds the next packet, within the window, and takes acks (PROTO 4 and 6)."""

from __future__ import annotations

from tunnel.core.path.delivery import KEPT_PACKET_BYTES, Inbox, Outbox, clock_us
from tunnel.core.path.pacing import Pacer
from tunnel.core.path.probes import Probes
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.scheduler import Scheduler
from tunnel.core.streams.table import StreamTable
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import encode_packet
from tunnel.core.wire.errors import Code, RemoteProtocolError
from tunnel.core.wire.limits import (
    MAX_DATA_BYTES,
    MAX_MESSAGE_BYTES,
    MIN_PEER_DATA_BYTES,
    MIN_PEER_PACKET_BYTES,
    Limits,
)

MAX_UNACKED_PACKETS = 64 * 1024
"""The most packets kept for a peer that acknowledges none: with KEPT_PACKET_BYTES each, 20 MiB beside the bytes."""
UNACKED_S = 30.0
"""Seconds for which a peer may be heard and acknowledge nothing of what was sent. An ack is due within milliseconds
(PROTO 4.5), and a path that delays it for so long would have been given up as dead.
"""
UNHEARD_S = 5.0
"""How much of these a silence counts at most: of a process that stood still itself, only what it heard since counts."""
QUEUED_WINDOWS = 8
"""How many of the pacer's windows may wait in the queues of all streams: what the link takes while sockets are read."""
INTERACTIVE_EXTRA = 1.25
"""The factor by which interactive frames may pass the window: a keystroke should not wait for bulk's next ack."""


class Egress:
    """The sending side of a session. Packets that are not acknowledged outlive carriers, the window does not."""

    __slots__ = (
        "_budget", "_heard_s", "_inbox", "_limits", "_max_data", "_max_kept_bytes", "_max_packet", "_probes",
        "_scheduler", "_streams", "_unacked_s", "outbox", "paced_until_s", "pacer",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        budget: Budget,
        scheduler: Scheduler,
        streams: StreamTable,
        inbox: Inbox,
        probes: Probes,
    ) -> None:
        """Takes packets from `probes` and acks of `inbox` at any time, and frames of `scheduler` as the
        window allows. What is kept is counted in `budget`.
        """
        self._limits = limits
        self._budget = budget
        self._scheduler = scheduler
        self._streams = streams
        self._inbox = inbox
        self._probes = probes
        self.outbox = Outbox()
        self._unacked_s = 0.0
        """For how long the peer was heard since its last ack that said something new, or since all was acknowledged."""
        self._heard_s = 0.0
        """When it was heard last meanwhile, on the session's clock."""
        self.pacer = self._new_pacer()
        self.paced_until_s: float | None = None
        """When pacing wants `next_packet` to be asked again though nothing has happened; None when it does not."""
        self._max_data = limits.max_data_bytes
        self._max_packet = limits.max_packet_bytes
        self._max_kept_bytes = limits.max_in_flight_bytes * INTERACTIVE_EXTRA

    def set_peer_limits(self, max_data_bytes: int, max_packet_bytes: int) -> None:
        """Takes what the peer is ready to receive, in bytes (PROTO 3.4); 0 leaves our own limits."""
        peer_data = max(max_data_bytes, MIN_PEER_DATA_BYTES) if max_data_bytes else MAX_DATA_BYTES
        peer_packet = max(max_packet_bytes, MIN_PEER_PACKET_BYTES) if max_packet_bytes else MAX_MESSAGE_BYTES
        self._max_data = min(self._limits.max_data_bytes, peer_data)
        self._max_packet = min(self._limits.max_packet_bytes, peer_packet)

    def restart(self, peer_received: int) -> None:
        """Goes on over a new carrier, of whose path nothing is known.

        The peer has every packet up to `peer_received`.
        """
        held = self.outbox.held_bytes
        self.outbox.restart(peer_received)
        self._unacked_s = 0.0
        self._budget.hold(self.outbox.held_bytes - held)
        self._streams.acknowledged(peer_received)
        self.pacer = self._new_pacer()
        self._streams.link_bytes = QUEUED_WINDOWS * self.pacer.window_bytes

    def close(self) -> None:
        """Drops every packet: the session is over, and nothing will be sent again."""
        self._budget.hold(-self.outbox.held_bytes)
        self.outbox.clear()

    def next_packet(self, now: float) -> bytes | None:
        """Returns the next message for the carrier, or None when nothing may be sent now."""
        probes = self._probes.take(now)
        if probes:
            return encode_packet(0, self._inbox.take_ack(now), probes)
        in_flight, window = self.outbox.in_flight_bytes, self.pacer.window_bytes
        if self.outbox.has_resends:
            if in_flight < window:
                return self.outbox.resend(now)
            self.pacer.blocked()
            return self._ack_if_due(now)
        frames = self._take_frames(in_flight, window, now)
        if not frames:
            return self._ack_if_due(now)
        seq = self.outbox.next_seq()
        message = encode_packet(seq, self._inbox.take_ack(now), self._streams.stamp(frames, seq, now))
        self.outbox.sent(seq, message, now)
        if taken := self._scheduler.taken_bytes:
            self._streams.allowance.sent(f.count_data(frames), len(message))
        self._budget.hold(len(message) + KEPT_PACKET_BYTES - taken)
        self.pacer.sent(len(message), now)
        return message

    def on_timer(self, now: float) -> None:
        """Ends the wait for pacing if its time has come."""
        if self.paced_until_s is not None and self.paced_until_s <= now:
            self.paced_until_s = None

    def receive_ack(self, ack: f.Ack, now: float) -> None:
        """Takes the ack of a packet of the peer, and adjusts window and round trip to it.

        Raises:
            RemoteProtocolError: it is an ack of what was not sent on this carrier, or none was new for too long.
        """
        before, acked_seq = self.outbox.in_flight_bytes, self.outbox.acked
        newest = self.outbox.acknowledge(ack.seq)
        if newest is None:
            if self.outbox.unacked_packets:
                self._note_unacked(now)
            return
        self._unacked_s, self._heard_s = 0.0, now
        forward_us = ack.received_us - clock_us(newest.sent_s)
        self.pacer.sample(now - newest.sent_s, ack.delay_us / 1e6, forward_us, now)
        acked = before - self.outbox.in_flight_bytes
        self._budget.hold(-acked - KEPT_PACKET_BYTES * (ack.seq - acked_seq))
        self.pacer.acknowledged(newest.seq, acked, newest.in_flight_bytes, self.outbox.last_seq, now)
        self._streams.rtt_s = self.pacer.rtt_s
        self._streams.link_bytes = QUEUED_WINDOWS * self.pacer.window_bytes
        self._streams.acknowledged(ack.seq)

    # Internal

    def _note_unacked(self, now: float) -> None:
        """Counts for how long a peer speaks and acknowledges nothing (PROTO 4.8)."""
        self._unacked_s += min(now - self._heard_s, UNHEARD_S)
        self._heard_s = now
        if self._unacked_s > UNACKED_S:
            raise RemoteProtocolError(f"nothing was acknowledged for {UNACKED_S:.0f} s", Code.LIMIT_EXCEEDED)

    def _new_pacer(self) -> Pacer:
        return Pacer(self._limits.max_in_flight_bytes, self._limits.max_packet_bytes)

    def _take_frames(self, in_flight: int, window: int, now: float) -> list[f.Frame]:
        """Returns the frames that the pacing window lets out.

        A small rest of it is not worth a packet, so bulk waits for room.
        """
        scheduler, pacer = self._scheduler, self.pacer
        if self.outbox.unacked_packets >= MAX_UNACKED_PACKETS or in_flight >= self._max_kept_bytes:
            pacer.blocked()
            return []
        packet = min(pacer.packet_bytes, self._max_packet)
        room = window - in_flight
        bulk = room >= packet or in_flight == 0
        if not scheduler.has_bulk:
            pacer.rests()
        elif not bulk:
            pacer.blocked()
        elif pacer.release_s > now:
            self.paced_until_s = pacer.release_s
            pacer.held()
            bulk = False
        interactive = in_flight < window * INTERACTIVE_EXTRA
        if (
            not scheduler.has_control
            and not (bulk and scheduler.has_bulk)
            and not (interactive and scheduler.has_interactive)
        ):
            return []
        return scheduler.take(packet, self._max_data, now, interactive=interactive, bulk=bulk)

    def _ack_if_due(self, now: float) -> bytes | None:
        if not self._inbox.ack_now:
            return None
        return encode_packet(0, self._inbox.take_ack(now), ())
