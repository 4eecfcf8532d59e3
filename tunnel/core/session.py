"""A session: streams that outlive carriers (PROTO 7).

Bytes, intents and `now` go in; packets, events and a timer come out.

The shell calls `receive_message` for each message of the carrier, asks `next_packet` whenever the carrier can take
one, calls `on_timer` at `next_timer()`, and handles `events()` after each of these.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from itertools import filterfalse
from typing import NamedTuple, cast

from tunnel.core import events as ev
from tunnel.core.egress import Egress
from tunnel.core.link import LINK, Link, LinkInput
from tunnel.core.machine import step_local
from tunnel.core.path.allowance import Allowance
from tunnel.core.path.delivery import Inbox
from tunnel.core.path.liveness import Liveness, Verdict
from tunnel.core.path.pacing import PacingStatistics
from tunnel.core.path.probes import PingBudget, Probes
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.scheduler import Scheduler
from tunnel.core.streams.stream import CoreStream
from tunnel.core.streams.table import StreamTable
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import decode_envelope, decode_packet
from tunnel.core.wire.errors import (
    Code,
    LocalProtocolError,
    OpenRefused,
    RemoteProtocolError,
    SessionLost,
    SessionRefused,
    TunnelError,
)
from tunnel.core.wire.handshake import decode_refusal
from tunnel.core.wire.limits import (
    Limits,
    Timing,
)
from tunnel.core.wire.principal import NOBODY, Principal
from tunnel.core.wire.target import Target

MAX_CONTROL_FRAMES = 4 * 4096 + 1024
"""The most answers owed to a peer that does not read them: four for each of 4096 streams; beyond that it is
an attack.
"""


class SessionStatistics(NamedTuple):
    """Figures of a session."""

    link: Link
    streams: int
    generation: int
    packets_sent: int
    packets_received: int
    kept_bytes: int
    budget_used_bytes: int
    """What windows, send queues and kept packets take of the session's budget."""
    budget_held_bytes: int
    """Those of them that wait to be sent or acknowledged."""
    pacing: PacingStatistics


class Session:
    """One side of a session, from its first carrier to its end."""

    def __init__(
        self,
        *,
        session_id: bytes,
        dialler: bool,
        now: float,
        limits: Limits | None = None,
        timing: Timing | None = None,
        process_budget: Budget | None = None,
        ping_budget: PingBudget | None = None,
        features: frozenset[str] = frozenset(),
        allowance: Allowance | None = None,
    ) -> None:
        """Begins a session without a carrier; `attach` gives it the first.

        Args:
            session_id: from Welcome.
            dialler: this side dialled (the agent): its streams have odd ids and it asks an idle peer first.
            now: the clock that all other calls use, in seconds.
            limits: what this side is ready to hold.
            timing: from Welcome.
            process_budget: pool for windows, queues and kept packets that this session shares with others; None for no
                other bound.
            ping_budget: shared likewise by a server's sessions; None: idle links are asked after `suspect_after_s`.
            features: what both sides can do, as the handshake has found (PROTO 3.8).
            allowance: what the peer may ask for, which outlives the session; None for one that begins with it.
        """
        self.session_id = session_id
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.features = features
        self.generation = 0
        self.link = Link.SUSPENDED
        self._dialler = dialler
        self._budget = Budget(total_bytes=self.limits.session_budget_bytes, parent=process_budget)
        self._scheduler = Scheduler()
        self._events: list[ev.Event] = []
        self._streams = StreamTable(
            self.limits, self._budget, self._scheduler, self._events, now, dialler=dialler, features=features,
            allowance=allowance,
        )  # fmt: skip
        self._inbox = Inbox(self.timing.max_ack_delay_s)
        self._liveness: Liveness | None = None
        self._ping_budget = ping_budget
        self._probes = Probes(self.timing.suspect_after_s, ping_budget)
        self._egress = Egress(self.limits, self._budget, self._scheduler, self._streams, self._inbox, self._probes)
        self._suspended_s = now
        self._traffic_s = now
        """When the peer last began a carrier or sent a sequenced packet, on the session's clock."""

    # Public - the link

    @property
    def last_received(self) -> int:
        """Returns the number of the newest packet received, which Hello and Welcome tell the peer."""
        return self._inbox.last_received

    @property
    def memory_bytes(self) -> int:
        """Returns what the session's windows, send queues and kept packets take."""
        return self._budget.used_bytes

    @property
    def going_away(self) -> bool:
        """Returns whether one of the sides takes no new streams."""
        return self._streams.refusing is not None

    def may_resume(self, peer_received: int) -> bool:
        """Returns whether a peer that received up to packet `peer_received` can go on with this session."""
        return self.link is not Link.CLOSED and self._egress.outbox.may_resume_at(peer_received)

    def set_peer_limits(self, max_streams: int, max_data_bytes: int, max_packet_bytes: int) -> None:
        """Takes how many streams, and bytes in a DATA frame and a packet, the peer is ready to receive (PROTO 3.4).

        A figure of 0 leaves our own limit.
        """
        self._streams.peer_max_streams = max_streams or self.limits.max_streams
        self._egress.set_peer_limits(max_data_bytes, max_packet_bytes)

    def attach(self, now: float, peer_received: int = 0) -> int:
        """Goes on over a new carrier, which fences any earlier one, and returns its generation (PROTO 7.2).

        Raises:
            LocalProtocolError: the session is closed, or `may_resume` was not asked.
        """
        if not self.may_resume(peer_received):
            raise LocalProtocolError(f"cannot attach in state {self.link.name.lower()} at packet {peer_received}")
        self._step(LinkInput.ATTACH)
        self.generation += 1
        self._egress.restart(peer_received)
        self._inbox.restart()
        self._liveness = Liveness(self.timing, now, ask_late=not self._dialler)
        self._probes.restart()
        self._traffic_s = now
        return self.generation

    def detach(self, generation: int, now: float) -> bool:
        """Tells the session that its carrier is gone, so that it waits for another one.

        Returns False when a newer carrier has its place already, or when the session is not attached.
        """
        if generation != self.generation or self.link is not Link.ATTACHED:
            return False
        self._step(LinkInput.DETACH)
        self._suspended_s = now
        self._liveness = None
        return True

    def close(self, error: TunnelError | None) -> None:
        """Ends the session: every stream ends with SessionLost, and nothing is sent any more.

        An `error` of None means that this side wished it. A closed session stays as it is.
        """
        if self.link is Link.CLOSED:
            return
        self._step(LinkInput.CLOSE)
        self._liveness = None
        refused = error.fault if isinstance(error, SessionRefused) else None
        self._streams.end_all(str(error) if error is not None else "the session was closed", refused)
        self._egress.close()
        self._events.append(ev.SessionClosed(error))

    def go_away(self, code: Code, text: str, reconnect_after_s: float = 0.0) -> None:
        """Takes no new streams from now on, and asks the peer to open none."""
        self._streams.refusing = OpenRefused(text, code)
        self._scheduler.control.append(f.GoAway(code, text, int(reconnect_after_s * 1000)))

    # Public - streams

    def stream(self, stream_id: int) -> CoreStream | None:
        """Returns the stream of this id, or None when it has ended."""
        return self._streams.get(stream_id)

    @property
    def peer_stream_count(self) -> int:
        """Returns how many streams have not ended that the peer opened."""
        return self._streams.remote_count

    @property
    def stream_count(self) -> int:
        """Returns how many streams have not ended, those that are still being opened included."""
        return len(self._streams)

    def open_stream(
        self,
        target: Target,
        now: float,
        *,
        deadline_s: float,
        traffic_class: f.TrafficClass = f.TrafficClass.AUTO,
        principal: Principal = NOBODY,
        trace_id: str = "",
        early_data: bytes = b"",
    ) -> CoreStream:
        """Opens a stream.

        StreamAccepted or StreamEnded follows within `deadline_s` seconds, also while the session is suspended.

        `early_data` are its first bytes, up to MAX_EARLY_BYTES, which spare a round trip; they are gone when it is
        refused.

        Raises:
            OpenRefused: the session is closed or going away, or a limit is reached.
            LocalProtocolError: the target is of an unknown kind, or the early data is too long.
        """
        if self.link is Link.CLOSED:
            raise OpenRefused("the session is closed", Code.SESSION_LOST)
        return self._streams.open(target, now, deadline_s, traffic_class, principal, trace_id, early_data)

    def accept_stream(self, stream: CoreStream, now: float, resolved_address: str = "") -> None:
        """Answers StreamOpened: the stream is connected. A stream that the peer has given up meanwhile is left alone.

        Raises:
            LocalProtocolError: it was answered already, or was opened by this side.
        """
        if self._streams.get(stream.id) is stream:
            self._streams.accept(stream, now, resolved_address)

    def reset_stream(self, stream: CoreStream, code: Code, text: str = "") -> None:
        """Ends a stream at once, or refuses one that the peer opened.

        No event follows; a stream that has ended is left alone.
        """
        if self._streams.get(stream.id) is stream:
            self._streams.reset(stream, code, text)

    def send_data(self, stream: CoreStream, data: bytes, now: float, *more: bytes) -> bool:
        """Queues bytes, and `more` behind them; returns False when the writer is to wait for StreamWritable.

        Bytes for an ended stream are dropped.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        return self._streams.get(stream.id) is not stream or self._streams.push(stream, data, now, *more)

    def send_room(self, stream: CoreStream) -> int:
        """Returns how many bytes `send_data` takes before it asks the writer to wait; 0 or less when it waits already.

        Whoever reads a socket for the stream should read no more at a time.
        """
        return self._streams.room(stream) if self._streams.get(stream.id) is stream else self.limits.send_queue_bytes

    def send_fin(self, stream: CoreStream, now: float) -> None:
        """Queues the end of our direction, behind the bytes that wait.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self._streams.get(stream.id) is stream:
            self._streams.finish(stream, now)

    def stop_sending(self, stream: CoreStream, code: Code, now: float) -> None:
        """Tells the peer that nobody reads this stream any more; bytes that come are dropped.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self._streams.get(stream.id) is stream:
            self._streams.stop_sending(stream, code, now)

    def take(self, stream: CoreStream) -> list[bytes]:
        """Returns everything that has arrived on a stream, in order, in chunks of up to 64 KiB."""
        return self._streams.take(stream)

    def consumed(self, stream: CoreStream, count: int, now: float) -> None:
        """Notes that the local reader is done with `count` bytes that it took, so that the peer may send more.

        Raises:
            LocalProtocolError: more bytes than arrived.
        """
        if self._streams.get(stream.id) is stream:
            self._streams.consumed(stream, count, now)

    # Public - carrier

    def events(self) -> list[ev.Event]:
        """Returns the events since the last call, in order."""
        events = self._events[:]
        self._events.clear()
        return events

    def receive_message(self, generation: int, message: bytes, now: float) -> None:
        """Takes one message of a carrier; late messages of a fenced carrier are ignored.

        Raises:
            RemoteProtocolError: the peer broke a rule; the caller closes the session with it.
            SessionRefused: the peer ended the session, since we broke one (PROTO 7.6).
        """
        if generation != self.generation or self._liveness is None:
            return
        self._liveness.heard(now)
        envelope = decode_envelope(message)
        match envelope.WhichOneof("body"):
            case "packet":
                packet = decode_packet(envelope.packet)
                self._streams.allowance.received(len(envelope.packet.frames), f.count_data(packet.frames), now)
                self._receive_packet(packet, len(message), now)
            case "refusal":
                raise decode_refusal(envelope.refusal)
            case "hello" | "welcome":
                raise RemoteProtocolError("a second handshake on one carrier")
            case _:  # a body that this build does not know is skipped, and is life all the same (PROTO 2.3)
                self._streams.allowance.received(0, 0, now)

    @property
    def read_at_s(self) -> float:
        """Returns the moment, on the session's clock, from which on the next message of the carrier may be read.

        A peer that sends more than it pays for is read more slowly, and its own streams wait (PROTO 4.7).
        """
        return self._streams.allowance.read_at_s

    def next_packet(self, now: float) -> bytes | None:
        """Returns the next message for the carrier, or None when nothing may be sent now."""
        if self.link is not Link.ATTACHED:
            return None
        return self._egress.next_packet(now)

    def next_timer(self) -> float | None:
        """Returns when `on_timer` must be called, on the session's clock; None when no call is needed."""
        opening_s, orphans_s = self._streams.next_deadline_s, self._streams.orphans.due_s
        if self.link is Link.SUSPENDED:
            return _soonest(opening_s, orphans_s, self._suspended_s + self.timing.resume_window_s)
        liveness, held_s = self._liveness, self._scheduler.held_until_s
        if liveness is None:
            return _soonest(opening_s, orphans_s)
        nudge_s = self._probes.nudge_s(self._waits_since_s, liveness.heard_s)
        silence_s, acks_s = liveness.due_s(self._silence_s), self._inbox.ack_timer_s
        return _soonest(opening_s, orphans_s, silence_s, held_s, nudge_s, acks_s, self._egress.paced_until_s)

    def overdue_s(self, now: float) -> float:
        """Returns how long ago `on_timer` should have been called; 0.0 when it is not late.

        Whoever drives the session stands still when this grows.
        """
        due = self.next_timer()
        return 0.0 if due is None else max(0.0, now - due)

    def on_timer(self, now: float) -> None:
        """Does what is due at `now`. Early and late calls are harmless."""
        self._streams.expire(now)
        if self._streams.orphans.due_s is not None:
            self._streams.end_orphans(now)
        if self.link is Link.SUSPENDED and now >= self._suspended_s + self.timing.resume_window_s:
            window_s = self.timing.resume_window_s
            self.close(SessionLost(f"the link did not come back within {window_s:.0f} s"))
        liveness = self._liveness
        if liveness is None:
            return
        self._inbox.on_timer(now)
        self._scheduler.on_timer(now)
        self._egress.on_timer(now)
        self._probes.on_timer(self._waits_since_s, liveness.heard_s, now)
        match liveness.check(now, self._silence_s):
            case Verdict.ASK:
                self._probes.ask()
                self._events.append(ev.PeerSuspect())
            case Verdict.DEAD:
                self.detach(self.generation, now)
                self._events.append(ev.CarrierDead(now - liveness.heard_s))
            case _:
                pass

    def statistics(self) -> SessionStatistics:
        """Returns the figures of the session as they stand."""
        return SessionStatistics(
            self.link,
            len(self._streams),
            self.generation,
            self._egress.outbox.last_seq,
            self._inbox.last_received,
            self._egress.outbox.kept_bytes,
            self._budget.used_bytes,
            self._budget.held_bytes,
            self._egress.pacer.statistics(),
        )

    # Internal

    def _step(self, input_: LinkInput) -> None:
        before, self.link = self.link, step_local(LINK, self.link, input_)
        if self._ping_budget is not None:
            self._ping_budget.links += (self.link is Link.ATTACHED) - (before is Link.ATTACHED)

    @property
    def _silence_s(self) -> float:
        """Returns the silence that needs no question: short while streams are open, long to make idle links cheap."""
        return self.timing.suspect_after_s if len(self._streams) else self._probes.idle_silence_s

    @property
    def _waits_since_s(self) -> float | None:
        """Returns since when this side has reason to expect the peer to say something; None for no reason.

        A packet of ours waits for its ack; or, on the side that dials, traffic of open streams has just stopped. The
        other side could do nothing with the knowledge that the link is gone but wait for a new one.
        """
        if (oldest_s := self._egress.outbox.oldest_sent_s) is not None:
            return oldest_s
        stopped = self._dialler and self._liveness is not None and self._traffic_s == self._liveness.heard_s
        return self._traffic_s if stopped and len(self._streams) else None

    def _receive_packet(self, packet: f.Packet, size_bytes: int, now: float) -> None:
        if packet.seq:
            self._inbox.receive(packet.seq, size_bytes, now)
            self._traffic_s = now
        for frame in packet.frames:
            match frame:
                case f.Ping():
                    self._probes.answer(frame)
                case f.Pong():
                    rtt_s = self._probes.answered(frame, now)
                    if rtt_s is not None:
                        self._egress.pacer.sample(rtt_s, 0.0, None, now)
                case _ if packet.seq == 0:
                    raise RemoteProtocolError(f"{type(frame).__name__} in an unsequenced packet")
                case f.GoAway():
                    self._streams.receive_go_away(frame)
                case _:
                    self._streams.receive(frame, now)
        # Behind the frames: a RESET is older than the ack of a FIN that crossed it, which then ended nothing in order.
        self._egress.receive_ack(packet.ack, now)
        if self._scheduler.control_frames > MAX_CONTROL_FRAMES:
            raise RemoteProtocolError("answers are not read", Code.LIMIT_EXCEEDED)


_is_none = functools.partial(operator.is_, None)


def _soonest(*dues: float | None) -> float | None:
    return min(cast("Iterator[float]", filterfalse(_is_none, dues)), default=None)
