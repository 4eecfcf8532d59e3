"""One stream: a sending half and a receiving half, each with its own state, queue and credit (PROTO 5 and 6)."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from tunnel.core.streams.chunks import Chunk, append_chunk
from tunnel.core.streams.states import RECEIVE, SEND, Input, Receive, Send, step_local, step_remote
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire.errors import Code, RemoteProtocolError
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.limits import MIB
from tunnel.core.wire.principal import NOBODY
from tunnel.core.wire.target import Target

MAX_CREDIT_AHEAD_BYTES = 1024 * MIB
"""Credit that runs further ahead of what we sent than this is nonsense or an attack on our arithmetic (PROTO 6.2)."""

INTERACTIVE_BYTES = 16 * 1024
"""A stream that sent no more than this lately is interactive: a screenful of a shell, the head of an HTTP exchange."""
INTERACTIVE_HINT_BYTES = 128 * 1024
"""The same bound for a stream whose opener said that it is interactive: a hint buys patience, not a right."""
RECENT_HALF_LIFE_S = 0.25
"""What was sent counts half after this time, so a shell that printed a long listing is soon interactive again."""


class StreamStatistics(NamedTuple):
    """Figures of one stream."""

    bytes_sent: int
    bytes_received: int
    send_queue_bytes: int
    receive_queue_bytes: int
    window_bytes: int


class SendHalf:
    """Bytes on their way to the peer. Finishes when the packet with its FIN is acknowledged, or by a reset."""

    __slots__ = (
        "_recent_bytes",
        "_recent_s",
        "_small_run",
        "chunks",
        "credit",
        "deficit",
        "hint",
        "offset",
        "queued",
        "scheduled",
        "state",
    )

    def __init__(self, hint: TrafficClass) -> None:
        self.state = Send.OPENING
        self.hint = hint
        self.chunks: deque[Chunk] = deque()
        self.queued = 0
        self.offset = 0
        self.credit = 0
        # The scheduler's own two: what this stream may still send in its turn, and whether it stands in a queue.
        self.deficit = 0
        self.scheduled = False
        self._recent_bytes = 0.0
        self._recent_s = 0.0
        self._small_run = 0

    @property
    def ready_bytes(self) -> int:
        """How much could go out now."""
        return min(self.queued, self.credit - self.offset)

    @property
    def ready(self) -> bool:
        """Whether there is something to send now: bytes within the credit, or a FIN with nothing before it."""
        return self.ready_bytes > 0 or (self.state is Send.FINISHING and self.queued == 0)

    def push(self, data: bytes) -> None:
        """Queue bytes. After a STOP_SENDING or a finish by the peer's wish they are dropped: nobody wants them.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self.state in (Send.OPENING, Send.OPEN):
            self.state = step_local(SEND, self.state, Input.DATA)
            if data:
                self._small_run = append_chunk(self.chunks, data, self._small_run)
                self.queued += len(data)

    def finish(self) -> None:
        """Queue the end. Saying so twice is allowed, and so is saying it after the peer asked us to stop.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self.state in (Send.OPENING, Send.OPEN):
            self.state = step_local(SEND, self.state, Input.FIN)

    def stop(self) -> None:
        """The peer wants no more: drop what waits and let FIN go out."""
        self.state = step_remote(SEND, self.state, Input.STOP)
        self.drop()

    def grant(self, limit: int) -> None:
        """Take the peer's absolute credit.

        Raises:
            RemoteProtocolError: it went down, or far beyond reason.
        """
        if limit < self.credit or limit - self.offset > MAX_CREDIT_AHEAD_BYTES:
            raise RemoteProtocolError(f"credit {limit} after {self.credit} at offset {self.offset}", Code.FLOW_CONTROL)
        self.credit = limit

    def take(self, max_bytes: int, now: float) -> bytes:
        """Remove up to `max_bytes` from the queue, within the credit. A whole chunk is handed on without a copy; one of
        more than half of what was asked for is not filled up from the next, for which both would be copied.
        """
        count = min(max_bytes, self.ready_bytes)
        head = self.chunks[0]
        if len(head) > count // 2:
            count = min(count, len(head))
        self.offset += count
        self.queued -= count
        self._note_sent(count, now)
        if len(head) == count:
            self.chunks.popleft()
            return bytes(head)
        if len(head) > count:
            view = memoryview(head)
            self.chunks[0] = view[count:]
            return bytes(view[:count])
        return self._join(count)

    def interactive(self, now: float) -> bool:
        """Whether it goes before bulk: little sent lately and little waiting."""
        if self.hint is TrafficClass.BULK:
            return False
        bound = INTERACTIVE_HINT_BYTES if self.hint is TrafficClass.INTERACTIVE else INTERACTIVE_BYTES
        return self.queued + self._decayed(now) <= bound

    def drop(self) -> None:
        """Forget what waits."""
        self.chunks.clear()
        self.queued = 0

    def _join(self, count: int) -> bytes:
        parts: list[Chunk] = []
        while count > 0:
            head = self.chunks.popleft()
            if len(head) > count:
                view = memoryview(head)
                self.chunks.appendleft(view[count:])
                head = view[:count]
            parts.append(head)
            count -= len(head)
        return b"".join(parts)

    def _decayed(self, now: float) -> float:
        return self._recent_bytes * math.exp2((self._recent_s - now) / RECENT_HALF_LIFE_S)

    def _note_sent(self, count: int, now: float) -> None:
        self._recent_bytes = self._decayed(now) + count
        self._recent_s = now


class ReceiveHalf:
    """Bytes that arrived. Finishes when FIN was received and everything before it was taken, or by a reset."""

    __slots__ = ("_small_run", "chunks", "queued", "state", "stopped", "window")

    def __init__(self, window: ReceiveWindow) -> None:
        self.state = Receive.OPENING
        self.window = window
        self.chunks: deque[bytes] = deque()
        self.queued = 0
        self.stopped = False
        self._small_run = 0

    def push(self, data: bytes) -> None:
        """Queue bytes from the peer.

        Raises:
            RemoteProtocolError: they are beyond the credit, before ACCEPT or after FIN.
        """
        self.state = step_remote(RECEIVE, self.state, Input.DATA)
        if not self.window.receive(len(data)):
            raise RemoteProtocolError(
                f"DATA up to {self.window.received}, credit is {self.window.granted}", Code.FLOW_CONTROL
            )
        if not self.stopped:
            self._small_run = append_chunk(self.chunks, data, self._small_run)
            self.queued += len(data)

    def start(self, data: bytes) -> None:
        """Queue what came with OPEN: within any window, and to be read once the stream is connected (PROTO 5.3)."""
        self.window.receive(len(data))
        self.chunks.append(data)
        self.queued = len(data)

    def finish(self) -> None:
        """The peer's FIN.

        Raises:
            RemoteProtocolError: a second one, or one before ACCEPT.
        """
        self.state = step_remote(RECEIVE, self.state, Input.FIN)

    def take(self) -> list[bytes]:
        """Everything that has arrived, in order. Credit is granted only when it is consumed."""
        chunks = list(self.chunks)
        self.drop()
        return chunks

    def drop(self) -> None:
        """Forget what waits."""
        self.chunks.clear()
        self.queued = 0


class CoreStream:
    """Both halves and what is known of the stream."""

    __slots__ = (
        "deadline_s",
        "fin_seq",
        "id",
        "local",
        "opened",
        "principal",
        "receive",
        "resolved_address",
        "send",
        "target",
        "trace_id",
        "was_full",
    )

    def __init__(
        self,
        stream_id: int,
        target: Target,
        *,
        local: bool,
        hint: TrafficClass,
        window: ReceiveWindow,
        deadline_s: float,
    ) -> None:
        """`local`: opened by this side. `deadline_s`: when, on the session's clock, the opening is given up."""
        self.id = stream_id
        self.target = target
        self.local = local
        self.send = SendHalf(hint)
        self.receive = ReceiveHalf(window)
        self.deadline_s = deadline_s
        self.opened = False
        self.principal = NOBODY
        self.trace_id = ""
        self.resolved_address = ""
        self.was_full = False
        self.fin_seq = 0

    @property
    def hint(self) -> TrafficClass:
        """What the opener said of the traffic."""
        return self.send.hint

    def open_up(self) -> None:
        """ACCEPT was sent or received: both halves may carry bytes."""
        self.send.state = step_local(SEND, self.send.state, Input.ACCEPTED)
        self.receive.state = step_local(RECEIVE, self.receive.state, Input.ACCEPTED)
        self.opened = True

    @property
    def finished(self) -> bool:
        """Both directions ended cleanly, the peer has our FIN and the local reader has everything."""
        done = self.send.state is Send.DONE and self.receive.state is Receive.FIN_RECEIVED
        return done and self.receive.queued == 0

    def statistics(self) -> StreamStatistics:
        """Figures as they stand."""
        window = self.receive.window
        return StreamStatistics(
            self.send.offset, window.received, self.send.queued, self.receive.queued, window.size_bytes
        )
