"""Two sessions over carriers that are cut anywhere, against a model: what goes in comes out, once and in order.

Hypothesis chooses what both sides do, how far packets get, and where carriers break; the model knows what must hold.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.core.wire_check import watch_both
from tunnel.core import events as ev
from tunnel.core.link import Link
from tunnel.core.path.delivery import KEPT_PACKET_BYTES
from tunnel.core.session import Session
from tunnel.core.streams.send_half import Send
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.errors import Code, OpenRefused, SessionLost
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.limits import MAX_EARLY_BYTES, Limits, Timing
from tunnel.core.wire.target import TcpTarget

AGENT, SERVER = 0, 1
RESUME_WINDOW_S = 30.0


@dataclass
class Half:
    """One end's view of a stream in the model."""

    core: CoreStream
    written: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    unconsumed: int = 0
    finished: bool = False
    """This end said that it wrote everything."""
    stopped: bool = False
    """This end wants no more bytes."""
    eof: bool = False
    readable: bool = False
    """Bytes were announced and not taken."""
    full: bool = False
    """The writer was asked to wait."""
    over: bool = False
    """Ended: by an event, or by this end's reset, after which none may follow."""


def _pattern(stream_id: int, end: int, start: int, count: int) -> bytes:
    return bytes((stream_id * 31 + end * 17 + one * 7 + one // 251) % 256 for one in range(start, start + count))


class Sessions(RuleBasedStateMachine):
    """The rules are what can happen; the invariants hold after each."""

    streams = Bundle("streams")

    @initialize(
        windows=st.sampled_from([(1, 1, 4), (1, 3, 64), (16, 64, 1000), (4096, 65536, 1 << 20)]),
        budget=st.sampled_from([200, 100_000, 1 << 22]),
        in_flight=st.sampled_from([6000, 1 << 20]),
        queue=st.sampled_from([10, 100_000]),
        opens=st.sampled_from([3, 1000]),
    )
    def start(self, windows: tuple[int, int, int], budget: int, in_flight: int, queue: int, opens: int) -> None:
        self.now = 10.0
        self.limits = Limits(
            min_window_bytes=windows[0],
            initial_window_bytes=windows[1],
            max_window_bytes=windows[2],
            session_budget_bytes=budget,
            max_in_flight_bytes=in_flight,
            max_packet_bytes=5000,
            send_queue_bytes=queue,
            min_send_queue_bytes=queue // 2,
            max_streams=opens,
            opens_burst=opens * 4,
            opens_per_s=1.0,
        )
        timing = Timing(suspect_after_s=5.0, dead_after_s=8.0, resume_window_s=RESUME_WINDOW_S)
        self.sessions = [
            Session(session_id=b"s" * 16, dialler=dialler, now=self.now, limits=self.limits, timing=timing)
            for dialler in (True, False)
        ]
        self.flying: list[deque[bytes]] = [deque(), deque()]
        self.halves: list[dict[int, Half]] = [{}, {}]
        self.unanswered: list[dict[int, CoreStream]] = [{}, {}]
        self.next_ids = [1, 2]
        self.closed = [False, False]
        self.checks = watch_both(5000)
        self._attach()

    # Rules - streams

    @rule(
        target=streams,
        end=st.sampled_from([AGENT, SERVER]),
        deadline_s=st.sampled_from([0.5, 20.0, 1000.0]),
        hint=st.sampled_from(TrafficClass),
        early=st.sampled_from([0, 0, 1, 100, MAX_EARLY_BYTES]),
    )
    def open(self, end: int, deadline_s: float, hint: TrafficClass, early: int) -> object:
        session = self.sessions[end]
        early = min(early, self.limits.min_window_bytes)
        data = _pattern(self.next_ids[end], end, 0, early)
        try:
            core = session.open_stream(
                TcpTarget("h", 1), self.now, deadline_s=deadline_s, traffic_class=hint, early_data=data
            )
        except OpenRefused:
            return multiple()
        assert core.id == self.next_ids[end]
        self.next_ids[end] += 2
        self.halves[end][core.id] = Half(core, written=bytearray(data))
        self._handle_events()
        return core.id

    @rule(stream_id=streams, how=st.sampled_from(["accept", "accept", "accept", "refuse"]))
    def answer(self, stream_id: int, how: str) -> None:
        end = SERVER if stream_id % 2 else AGENT
        core = self.unanswered[end].pop(stream_id, None)
        if core is None:
            return
        if how == "accept":
            self.halves[end][stream_id] = Half(core)
            self.sessions[end].accept_stream(core, self.now, "h:1")
        else:
            self.sessions[end].reset_stream(core, Code.REFUSED, "no")
        self._handle_events()

    @rule(stream_id=streams, end=st.sampled_from([AGENT, SERVER]), size=st.sampled_from([1, 3, 100, 2000, 70_000]))
    def write(self, stream_id: int, end: int, size: int) -> None:
        half = self._usable(stream_id, end)
        if half is None or half.core.send.state is not Send.OPEN or half.full:
            return
        size = min(size, 500 * self.limits.min_window_bytes - len(half.written))  # it must get through in the end
        data = _pattern(stream_id, end, len(half.written), size)
        half.written += data
        half.full = not self.sessions[end].send_data(half.core, data, self.now)
        self._handle_events()

    @rule(stream_id=streams, end=st.sampled_from([AGENT, SERVER]), part=st.sampled_from([0.0, 0.5, 1.0]))
    def read(self, stream_id: int, end: int, part: float) -> None:
        half = self._usable(stream_id, end)
        if half is not None:
            self._take(half, stream_id, end)
            count = int(half.unconsumed * part)
            half.unconsumed -= count
            self.sessions[end].consumed(half.core, count, self.now)
            self._handle_events()

    @rule(stream_id=streams, end=st.sampled_from([AGENT, SERVER]))
    def finish(self, stream_id: int, end: int) -> None:
        half = self._usable(stream_id, end)
        if half is not None:
            half.finished = True
            self.sessions[end].send_fin(half.core, self.now)
            self._handle_events()

    @rule(stream_id=streams, end=st.sampled_from([AGENT, SERVER]))
    def reset(self, stream_id: int, end: int) -> None:
        half = self.halves[end].get(stream_id)
        if half is not None and not half.over:
            half.over = True
            self.sessions[end].reset_stream(half.core, Code.CONNECTION_RESET, "reset")
            self._handle_events()

    @rule(stream_id=streams, end=st.sampled_from([AGENT, SERVER]))
    def stop_sending(self, stream_id: int, end: int) -> None:
        half = self._usable(stream_id, end)
        if half is not None:
            half.stopped = True
            self.sessions[end].stop_sending(half.core, Code.CANCELLED, self.now)
            self._handle_events()

    # Rules - the link

    @rule(end=st.sampled_from([AGENT, SERVER]), count=st.sampled_from([1, 2, 50]))
    def send(self, end: int, count: int) -> None:
        for _ in range(count):
            message = self.sessions[end].next_packet(self.now)
            if message is None:
                break
            self.checks[end].message(message)
            self.flying[end].append(message)
        self._handle_events()

    @rule(end=st.sampled_from([AGENT, SERVER]), count=st.sampled_from([1, 2, 50]))
    def deliver(self, end: int, count: int) -> None:
        receiver = self.sessions[1 - end]
        for _ in range(min(count, len(self.flying[end]))):
            receiver.receive_message(receiver.generation, self.flying[end].popleft(), self.now)
        self._handle_events()

    @rule(arrive=st.tuples(st.integers(0, 5), st.integers(0, 5)), late=st.booleans(), resume=st.booleans())
    def cut(self, arrive: tuple[int, int], late: bool, resume: bool) -> None:
        """The carrier breaks: some of what is on its way still arrives, the rest is lost."""
        self.deliver(AGENT, arrive[0])
        self.deliver(SERVER, arrive[1])
        stale = [list(flying) for flying in self.flying]
        generations = [session.generation for session in self.sessions]
        if not (late and resume):  # or one side has not even noticed when the next carrier comes
            for session in self.sessions:
                session.detach(session.generation, self.now)
        if resume:
            self._attach()
        for end in (AGENT, SERVER):
            self.flying[end].clear()
            for message in stale[end]:  # of a fenced carrier: ignored
                self.sessions[1 - end].receive_message(generations[1 - end], message, self.now)
            assert not self.sessions[end].detach(generations[end], self.now)
        self._handle_events()

    @rule()
    def resume(self) -> None:
        self._attach()

    @rule(duration_s=st.sampled_from([0.001, 0.003, 0.1, 2.0, 6.0, 31.0]))
    def pass_time(self, duration_s: float) -> None:
        self._pass_time(duration_s)

    @precondition(lambda self: self.now > 12.0)
    @rule(end=st.sampled_from([AGENT, SERVER]))
    def go_away(self, end: int) -> None:
        self.sessions[end].go_away(Code.SHUTTING_DOWN, "stopping")

    # Invariants

    @invariant()
    def credit_and_memory_stay_within_bounds(self) -> None:
        for session in getattr(self, "sessions", []):
            statistics = session.statistics()
            windows = queued = 0
            for stream in session._streams.all():
                window, send = stream.receive.window, stream.send
                assert 0 <= send.offset <= send.credit
                assert 0 <= window.consumed <= window.received <= window.granted
                assert window.granted - window.consumed <= window.size_bytes <= max(window.max_bytes, 1)
                assert sum(map(len, stream.receive.chunks)) == stream.receive.queued
                assert stream.receive.queued <= window.granted - window.consumed
                assert sum(map(len, send.chunks)) == send.queued
                windows += window.size_bytes
                queued += send.queued
            assert windows <= self.limits.session_budget_bytes
            outbox = session._egress.outbox
            kept = [len(packet.message) for packet in outbox._kept.values()]
            assert statistics.kept_bytes == sum(kept)
            assert statistics.budget_held_bytes == queued + sum(kept) + KEPT_PACKET_BYTES * len(kept)
            assert statistics.budget_used_bytes == windows + statistics.budget_held_bytes
            assert statistics.kept_bytes <= self.limits.max_in_flight_bytes * 1.25 + 5000

    @invariant()
    def what_arrived_is_what_was_written(self) -> None:
        for end, halves in enumerate(getattr(self, "halves", [])):
            for stream_id, half in halves.items():
                other = self.halves[1 - end].get(stream_id)
                assert half.received == (other.written[: len(half.received)] if other else b"")

    def teardown(self) -> None:
        """Whatever happened: with a link that holds and readers that read, every stream comes to its end."""
        if not hasattr(self, "sessions"):
            return
        self._attach()
        for _ in range(2000):
            for stream_id in {*self.halves[0], *self.halves[1], *self.unanswered[0], *self.unanswered[1]}:
                self.answer(stream_id, "accept")
                for end in (AGENT, SERVER):
                    self.finish(stream_id, end)
                    self.read(stream_id, end, 1.0)
            if not any(session.stream_count for session in self.sessions):
                break
            for end in (AGENT, SERVER):
                self.send(end, 50)
                self.deliver(end, 50)
            self._pass_time(0.003)
        for end in (AGENT, SERVER, AGENT, SERVER):  # the last acks
            self.send(end, 50)
            self.deliver(end, 50)
            self._pass_time(0.003)
        assert [session.stream_count for session in self.sessions] == [0, 0]
        assert [session.statistics().budget_used_bytes for session in self.sessions] == [0, 0]
        assert all(half.over for halves in self.halves for half in halves.values())

    # Internal

    def _attach(self) -> None:
        if any(self.closed):
            return
        received = [session.last_received for session in self.sessions]
        for end, session in enumerate(self.sessions):
            assert session.may_resume(received[1 - end])
            session.attach(self.now, received[1 - end])
            self.flying[end].clear()
        self._handle_events()

    def _usable(self, stream_id: int, end: int) -> Half | None:
        half = self.halves[end].get(stream_id)
        return half if half is not None and half.core.opened and not half.over else None

    def _take(self, half: Half, stream_id: int, end: int) -> None:
        assert bool(half.core.receive.queued) <= half.readable
        half.readable = False
        for chunk in self.sessions[end].take(half.core):
            assert not half.stopped
            half.received += chunk
            half.unconsumed += len(chunk)

    def _pass_time(self, duration_s: float) -> None:
        end_s = self.now + duration_s
        for _ in range(100):
            timers = [session.next_timer() for session in self.sessions]
            due = min((timer for timer in timers if timer is not None), default=math.inf)
            if due > end_s:
                break
            self.now = max(self.now, due)
            for session in self.sessions:
                session.on_timer(self.now)
            self._handle_events()
        else:
            raise AssertionError("timers never stop")
        self.now = end_s

    def _handle_events(self) -> None:
        for end, session in enumerate(self.sessions):
            while events := session.events():
                for event in events:
                    self._handle(end, event)

    def _handle(self, end: int, event: ev.Event) -> None:
        session = self.sessions[end]
        match event:
            case ev.StreamOpened():
                core = session.stream(event.stream_id)
                if core is not None:
                    self.unanswered[end][event.stream_id] = core
            case ev.SessionClosed():
                assert isinstance(event.error, SessionLost)
                assert session.stream_count == 0
                self.closed[end] = True
                for half in self.halves[end].values():
                    assert half.over
                # Its peer learns of it when it dials: the session is unknown.
                self.sessions[1 - end].close(SessionLost("unknown session"))
            case ev.CarrierDead():
                assert session.link is Link.SUSPENDED
            case ev.PeerSuspect() | ev.PeerGoingAway() | ev.OpenTurnedDown():
                pass
            case _:
                self._handle_stream_event(end, event)

    def _handle_stream_event(
        self,
        end: int,
        event: ev.StreamAccepted | ev.StreamReadable | ev.StreamFinished | ev.StreamWritable | ev.StreamEnded,
    ) -> None:
        half = self.halves[end].get(event.stream_id)
        if half is None:  # the peer gave up before an answer
            assert isinstance(event, ev.StreamEnded)
            self.unanswered[end].pop(event.stream_id, None)
            return
        assert not half.over, f"{event} after the end"
        other = self.halves[1 - end].get(event.stream_id)
        match event:
            case ev.StreamReadable():
                half.readable = True
            case ev.StreamWritable():
                assert half.full
                half.full = False
            case ev.StreamFinished():
                half.eof = True
                assert other is not None
                assert other.finished or half.stopped
                if not half.stopped:
                    assert len(half.received) + half.core.receive.queued == len(other.written)
            case ev.StreamEnded():
                half.over = True
                if event.error is None:
                    assert half.eof
                    assert other is not None
                    assert half.stopped or half.received == other.written
                    assert other.eof or other.over  # or it was reset there, and the ack of the FIN overtook the RESET
                    assert (
                        other.stopped
                        or other.over
                        or len(other.received) + other.core.receive.queued == len(half.written)
                    )


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=150, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
