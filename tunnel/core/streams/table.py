"""The streams of a session: opening, numbering, limits, and what each frame does to them (PROTO 5 and 6).

A stream's frames change that stream only; what the peer does wrong ends the session and is raised as
RemoteProtocolError.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from tunnel.core import events as ev
from tunnel.core.path.allowance import Allowance
from tunnel.core.streams.budget import Budget
from tunnel.core.streams.orphans import Orphans
from tunnel.core.streams.receive_half import Receive
from tunnel.core.streams.scheduler import Scheduler
from tunnel.core.streams.stream import CoreStream
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire import frames as f
from tunnel.core.wire.errors import (
    Code,
    LocalProtocolError,
    OpenRefused,
    RemoteProtocolError,
    SessionLost,
    StreamError,
    StreamReset,
)
from tunnel.core.wire.faults import NO_MEMORY_FOR_STREAM, NOT_FORWARDED, OPENS_TOO_FAST, Fault
from tunnel.core.wire.features import PRINCIPAL
from tunnel.core.wire.limits import CHUNK_BYTES, MAX_EARLY_BYTES, MAX_HOP, Limits
from tunnel.core.wire.principal import NOBODY, Principal
from tunnel.core.wire.target import Target, UnknownTarget

DEFAULT_RTT_S = 0.1
"""The round trip assumed for window growth before one was measured, in seconds."""
MAX_DEADLINE_MS = 0xFFFFFFFF
"""The longest deadline that the field of OPEN holds: 49 days."""


class StreamTable:
    """All streams of one session that have not ended, whichever side opened them."""

    __slots__ = (
        "_budget", "_deadlines", "_events", "_last_announced_id", "_last_remote_id", "_limits", "_next_local_id",
        "_peer_goes_away", "_remote_count", "_remote_parity", "_scheduler", "_streams",
        "_tells_in_words", "_unacked_fins", "allowance", "link_bytes", "orphans", "peer_max_streams", "refusing",
        "rtt_s",
    )  # fmt: skip

    def __init__(
        self,
        limits: Limits,
        budget: Budget,
        scheduler: Scheduler,
        events: list[ev.Event],
        now: float,
        *,
        dialler: bool,
        features: frozenset[str],
        allowance: Allowance | None = None,
    ) -> None:
        """`dialler` says that this side dialled the carrier, so its streams have odd ids (PROTO 5.1). `allowance` is
        the peer's; None for one that begins now.
        """
        self._limits = limits
        self._budget = budget
        self._scheduler = scheduler
        self._events = events
        self._streams: dict[int, CoreStream] = {}
        self._next_local_id = 1 if dialler else 2
        self._last_announced_id = 0
        """The newest local stream whose OPEN was sent; the peer cannot know any later one."""
        self._last_remote_id = 0
        self._remote_parity = 0 if dialler else 1
        self._remote_count = 0
        self.allowance = allowance or Allowance(limits, now)
        """What the peer may ask for."""
        self._deadlines: list[tuple[float, int]] = []
        self._unacked_fins: list[CoreStream] = []
        """Streams whose FIN is not acknowledged, in the order of the packets that carry them."""
        self.peer_max_streams = limits.max_streams
        self.refusing: OpenRefused | None = None
        """Why new streams are refused, in both directions; None while they are taken."""
        self._peer_goes_away = False
        self._tells_in_words = PRINCIPAL not in features
        self.orphans = Orphans(limits.orphan_after_s)
        """Streams whose users have gone: `end_orphans` must be called when they are due."""
        self.rtt_s = DEFAULT_RTT_S
        self.link_bytes = limits.min_session_send_queue_bytes
        """How many bytes the link takes while sockets are read, as it goes now."""

    @property
    def remote_count(self) -> int:
        """Returns how many streams there are that the peer opened."""
        return self._remote_count

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, stream_id: int) -> CoreStream | None:
        """Returns the stream of this id, or None when it has ended."""
        return self._streams.get(stream_id)

    def all(self) -> list[CoreStream]:
        """Returns every stream that has not ended."""
        return list(self._streams.values())

    # Local side

    def open(
        self,
        target: Target,
        now: float,
        deadline_s: float,
        traffic_class: f.TrafficClass,
        principal: Principal,
        trace_id: str,
        early_data: bytes,
    ) -> CoreStream:
        """Opens a stream; its answer comes as an event.

        Raises:
            OpenRefused: this session takes no more streams.
            LocalProtocolError: the target is of an unknown kind, or the early data is too long.
        """
        if isinstance(target, UnknownTarget):
            raise LocalProtocolError("a stream can be opened to known kinds of target only")
        if self.refusing is not None:
            # A fresh error each time: one that is raised again and again would keep every raiser's frames.
            raise OpenRefused(self.refusing.text, self.refusing.code, self.refusing.fault)
        if len(early_data) > MAX_EARLY_BYTES:
            raise LocalProtocolError(f"{len(early_data)} bytes of early data, at most {MAX_EARLY_BYTES} are allowed")
        if len(self._streams) - self._remote_count >= self.peer_max_streams:
            raise OpenRefused(f"{self.peer_max_streams} streams are open already", Code.LIMIT_EXCEEDED)
        window = self._new_window()
        if window is None:
            raise OpenRefused("no memory is left for another stream", Code.LIMIT_EXCEEDED, NO_MEMORY_FOR_STREAM)
        stream = CoreStream(
            self._next_local_id, target, local=True, hint=traffic_class, window=window, deadline_s=now + deadline_s
        )
        stream.principal, stream.trace_id = principal, trace_id
        self._next_local_id += 2
        self._streams[stream.id] = stream
        heapq.heappush(self._deadlines, (stream.deadline_s, stream.id))
        words = str(principal) if self._tells_in_words and principal is not NOBODY else ""
        opening = f.Open(stream.id, target, 1, window.granted, traffic_class, principal, trace_id, early_data, words)
        stream.send.offset = stream.send.credit = len(early_data)
        self._scheduler.control.append(opening)
        self.allowance.stream_opened()
        return stream

    def accept(self, stream: CoreStream, now: float, resolved_address: str) -> None:
        """Answers the peer's OPEN: the stream is connected.

        Raises:
            LocalProtocolError: it was answered already, or is no OPEN of the peer.
        """
        if stream.local:
            raise LocalProtocolError(f"stream {stream.id} was opened by this side")
        stream.open_up()
        stream.resolved_address = resolved_address
        answer = f.Accept(stream.id, resolved_address, stream.receive.window.granted)
        if not stream.receive.queued:
            self._scheduler.control.append(answer)
        else:
            self._scheduler.hold(answer, now)
            self._events.append(ev.StreamReadable(stream.id))

    def push(self, stream: CoreStream, data: bytes, now: float, *more: bytes) -> bool:
        """Queues bytes to send; returns False when the writer is to wait for StreamWritable.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        half = stream.send
        self._budget.hold(sum(map(half.push, (data, *more))))
        self._scheduler.add_stream(stream, now)
        promised, half.room_until = half.room_until, 0
        return half.queued < promised or half.has_room(self._queue_limit(stream))

    def room(self, stream: CoreStream) -> int:
        """Returns how many bytes `push` takes before it asks the writer to wait; 0 or less when it waits already.

        Whoever asks pushes at once, no more than this, and asks again before the next time. Where there is room for a
        chunk it is in whole chunks: a part of one puts all that follow out of step with frames, so that they are cut
        and joined again, which is to copy them.
        """
        stream.send.room_until = limit = self._queue_limit(stream)
        room = limit - stream.send.queued
        return room if limit < CHUNK_BYTES or room <= 0 else -(-room // CHUNK_BYTES) * CHUNK_BYTES

    def finish(self, stream: CoreStream, now: float) -> None:
        """Queues the end of this side's direction, behind the bytes that wait.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        stream.send.finish()
        self._scheduler.add_stream(stream, now)

    def reset(self, stream: CoreStream, code: Code, text: str) -> None:
        """Ends a stream at once and tells the peer, unless its OPEN was not sent yet. No event follows."""
        if self._unsent(stream):
            self._scheduler.remove_open(stream.id)
        else:
            self._scheduler.control.append(f.Reset(stream.id, code, text))
        self._remove(stream)

    def stop_sending(self, stream: CoreStream, code: Code, now: float) -> None:
        """Tells the peer that its bytes are not wanted any more; those that come are dropped.

        Raises:
            LocalProtocolError: the stream is not connected yet; it can be reset.
        """
        if not stream.opened:
            raise LocalProtocolError(f"stream {stream.id} is not connected yet")
        if stream.receive.stop():
            self._scheduler.control.append(f.StopSending(stream.id, code))
        self.orphans.add(stream, now)
        self._end_if_finished(stream)

    def take(self, stream: CoreStream) -> list[bytes]:
        """Returns everything that has arrived for the local reader, in order."""
        return stream.receive.take()

    def consumed(self, stream: CoreStream, count: int, now: float) -> None:
        """Notes that the local reader is done with `count` bytes, so that the peer may send more.

        Raises:
            LocalProtocolError: more bytes than arrived.
        """
        limit = stream.receive.window.consume(count, now, self.rtt_s)
        if stream.receive.state is not Receive.OPEN:
            self._end_if_finished(stream)
        elif limit is not None:
            self._scheduler.add_credit(stream.id, limit)

    # Remote side

    def receive(self, frame: f.Frame, now: float) -> None:
        """Applies a frame of the peer to its stream.

        Raises:
            RemoteProtocolError: the frame is not allowed.
        """
        if isinstance(frame, f.Open):
            self._receive_open(frame, now)
            return
        assert not isinstance(frame, f.Ping | f.Pong | f.GoAway)
        self._check_was_opened(frame.stream_id)
        stream = self._streams.get(frame.stream_id)
        if stream is None:  # it has ended here, and the frame crossed our RESET (PROTO 5.5)
            return
        match frame:
            case f.Data():
                self._receive_data(stream, frame.data)
            case f.Credit():
                self._check_opened(stream)
                stream.send.grant(frame.limit)
                self._scheduler.add_stream(stream, now)
                if stream.send.full:
                    stream.send.resume_bytes = self._queue_limit(stream) // 2
                    self._note_writable(stream)
            case f.Accept():
                self._receive_accept(stream, frame)
            case f.Fin():
                stream.receive.finish()
                self._events.append(ev.StreamFinished(stream.id))
                self._end_if_finished(stream)
            case f.Reset():
                refused = stream.local and not stream.opened
                self._end(stream, (OpenRefused if refused else StreamReset).from_peer(frame.text, frame.code))
            case _:
                self._receive_stop_sending(stream, frame, now)

    def receive_go_away(self, frame: f.GoAway) -> None:
        """Takes the peer's GOAWAY: it takes no new streams, and we open none.

        A second one says nothing new (PROTO 8.1).
        """
        if self._peer_goes_away:
            return
        self._peer_goes_away = True
        if self.refusing is None:
            self.refusing = OpenRefused.from_peer(frame.text or "the other side is shutting down", frame.code)
        self._events.append(ev.PeerGoingAway(frame.code, frame.text, frame.reconnect_after_ms / 1000))

    def stamp(self, frames: Sequence[f.Frame], seq: int, now: float) -> list[f.Frame]:
        """Completes frames that leave in packet `seq`: sets the time left in OPENs, and notes which packet has each
        FIN.
        """
        stamped: list[f.Frame] = []
        for frame in frames:
            if type(frame) is f.Data:
                self._note_writable(self._streams[frame.stream_id])
            elif type(frame) is f.Fin:
                stream = self._streams[frame.stream_id]
                stream.send.end_carried(seq)
                self._unacked_fins.append(stream)
            elif type(frame) is f.Open:
                left_s = self._streams[frame.stream_id].deadline_s - now
                self._last_announced_id = frame.stream_id
                stamped.append(replace(frame, deadline_ms=int(min(max(left_s * 1000, 1), MAX_DEADLINE_MS))))
                continue
            stamped.append(frame)
        return stamped

    def acknowledged(self, seq: int) -> None:
        """Notes that the peer has every packet up to `seq`, so that the FINs in them have arrived."""
        arrived = list(takewhile(lambda stream: stream.send.fin_seq <= seq, self._unacked_fins))
        del self._unacked_fins[: len(arrived)]
        for stream in arrived:
            if stream.id in self._streams:
                stream.send.end_arrived()
                self._end_if_finished(stream)

    def end_orphans(self, now: float) -> None:
        """Resets the streams whose user has gone, and of whose bytes none was read for long."""
        for stream in self.orphans.given_up(now):
            error = StreamReset("its user has gone, and what was sent is not read", Code.ORPHANED)
            self._scheduler.control.append(f.Reset(stream.id, error.code, error.told))
            self._end(stream, error)

    @property
    def next_deadline_s(self) -> float | None:
        """Returns when the next opening is given up, on the session's clock; None when nothing is being opened."""
        while self._deadlines:
            deadline, stream_id = self._deadlines[0]
            stream = self._streams.get(stream_id)
            if stream is not None and not stream.opened:
                return deadline
            heapq.heappop(self._deadlines)
        return None

    def expire(self, now: float) -> None:
        """Gives up openings whose deadline is over. A peer that knows of them is told to stop dialling."""
        while (deadline := self.next_deadline_s) is not None and deadline <= now:
            stream = self._streams[heapq.heappop(self._deadlines)[1]]
            if self._unsent(stream):
                self._scheduler.remove_open(stream.id)
                self._end(stream, OpenRefused("the link to the other side is down", Code.AGENT_AWAY))
            else:
                self._scheduler.control.append(f.Reset(stream.id, Code.DEADLINE, "deadline over"))
                self._end(stream, OpenRefused("no answer within the deadline", Code.DEADLINE))

    def end_all(self, text: str, fault: Fault | None = None) -> None:
        """Ends every stream with SessionLost, because the session is gone.

        Each stream gets an error of its own, to be raised.

        `fault` is the cause; with None it is that of SessionLost.
        """
        for stream in self.all():
            self._end(stream, SessionLost(text, fault=fault))
        self._unacked_fins.clear()

    # Internal

    def _new_window(self) -> ReceiveWindow | None:
        limits = self._limits
        size = self._budget.initial_window(limits.initial_window_bytes, limits.min_window_bytes)
        return ReceiveWindow(size, limits.max_window_bytes, self._budget) if size > 0 else None

    def _queue_limit(self, stream: CoreStream) -> int:
        """Returns how many bytes a stream may queue: what its peer would take, and a little that waits for credit,
        as far as the link keeps up with all streams that are ready, and memory is left.
        """
        limits, half = self._limits, stream.send
        to_grow, to_wait = self._budget.rooms()
        link = max(limits.min_session_send_queue_bytes, min(self.link_bytes, limits.session_send_queue_bytes))
        share = min(limits.send_queue_bytes, link // (self._scheduler.ready_streams or 1), to_grow // 2)
        waiting = max(0, min(limits.waiting_queue_bytes, to_wait // 32))
        return max(limits.min_send_queue_bytes, min(share, half.credit - half.offset + waiting))

    def _receive_open(self, frame: f.Open, now: float) -> None:
        if frame.stream_id % 2 != self._remote_parity or frame.stream_id <= self._last_remote_id:
            raise RemoteProtocolError(f"OPEN of stream {frame.stream_id} after {self._last_remote_id}")
        self._last_remote_id = frame.stream_id
        refusal = self._refuse(frame, now)
        window = None if refusal is not None else self._new_window()
        if refusal is None and window is None:
            refusal = OpenRefused("no memory is left for another stream", Code.LIMIT_EXCEEDED, NO_MEMORY_FOR_STREAM)
        if window is None or refusal is not None:
            assert refusal is not None
            self._scheduler.control.append(f.Reset(frame.stream_id, refusal.code, refusal.told))
            self._events.append(ev.OpenTurnedDown(frame.target, frame.principal, frame.trace_id, refusal))
            return
        deadline_s = now + frame.deadline_ms / 1000
        stream = CoreStream(
            frame.stream_id, frame.target, local=False, hint=frame.traffic_class, window=window, deadline_s=deadline_s
        )
        stream.principal, stream.trace_id = frame.principal, frame.trace_id
        stream.send.grant(frame.credit)
        if frame.early_data:
            stream.receive.start(frame.early_data)
        self._streams[stream.id] = stream
        self._remote_count += 1
        self.allowance.stream_opened()
        opened = ev.StreamOpened(stream.id, frame.target, deadline_s, frame.principal, frame.trace_id, frame.agent)
        self._events.append(opened)

    def _refuse(self, frame: f.Open, now: float) -> OpenRefused | None:
        if self.refusing is not None:
            return self.refusing
        if self._remote_count >= self._limits.max_streams:
            self.allowance.open_refused()
            return OpenRefused(f"{self._limits.max_streams} streams are open already", Code.LIMIT_EXCEEDED)
        if not self.allowance.opens.take(now):
            self.allowance.open_refused()
            return OpenRefused("streams are opened too fast", Code.LIMIT_EXCEEDED, OPENS_TOO_FAST)
        if frame.hop > MAX_HOP:
            return OpenRefused("the stream was forwarded by one server too many", Code.UNREACHABLE, NOT_FORWARDED)
        return None

    def _receive_accept(self, stream: CoreStream, frame: f.Accept) -> None:
        if not stream.local or stream.opened:
            raise RemoteProtocolError(f"ACCEPT of stream {stream.id}, which was not waiting for one")
        stream.open_up()
        stream.resolved_address = frame.resolved_address
        stream.send.grant(frame.credit)
        self._events.append(ev.StreamAccepted(stream.id, frame.resolved_address))

    def _receive_data(self, stream: CoreStream, data: bytes) -> None:
        was_empty = not stream.receive.queued
        stream.receive.push(data)
        if was_empty and stream.receive.queued:
            self._events.append(ev.StreamReadable(stream.id))

    def _receive_stop_sending(self, stream: CoreStream, _: f.StopSending, now: float) -> None:
        self._budget.hold(-stream.send.stop())
        self._scheduler.add_stream(stream, now)
        self.orphans.add(stream, now)
        self._note_writable(stream)

    def _check_opened(self, stream: CoreStream) -> None:
        if not stream.opened:
            raise RemoteProtocolError(f"frame for stream {stream.id} before ACCEPT")

    def _check_was_opened(self, stream_id: int) -> None:
        remote = stream_id % 2 == self._remote_parity
        if stream_id > (self._last_remote_id if remote else self._last_announced_id):
            raise RemoteProtocolError(f"frame for stream {stream_id}, which was never opened")

    def _unsent(self, stream: CoreStream) -> bool:
        """Returns whether the OPEN of a stream still waits for a carrier."""
        return stream.local and stream.id > self._last_announced_id

    def _note_writable(self, stream: CoreStream) -> None:
        if stream.send.full and stream.send.drained():
            self._events.append(ev.StreamWritable(stream.id))

    def _end_if_finished(self, stream: CoreStream) -> None:
        if stream.finished and stream.id in self._streams:
            self._end(stream, None)

    def _end(self, stream: CoreStream, error: StreamError | None) -> None:
        self._remove(stream)
        self._events.append(ev.StreamEnded(stream.id, error))

    def _remove(self, stream: CoreStream) -> None:
        del self._streams[stream.id]
        if not stream.local:
            self._remote_count -= 1
        self._scheduler.remove_stream(stream)
        self.orphans.remove(stream)
        if stream.send.queued:
            self._budget.hold(-stream.send.drop())
        stream.receive.drop()
        stream.receive.window.close()
