"""The life of a sending half: bytes on their way to the peer, in order, within its credit, to their end (PROTO 5, 6).

Every change of its state is made here; who causes one says so by a method:

    open_up       ACCEPT was sent or received
    push, finish  the local writer
    stop          the peer's STOP_SENDING
    take          the scheduler, for a packet
    end_taken     the scheduler, when FIN goes out behind the last byte
    end_carried   the stream table, when that packet has its number
    end_arrived   the stream table, when the peer has acknowledged it
"""

from __future__ import annotations

import math
from collections import deque
from enum import auto, unique

from tunnel.core.machine import Symbol, step_local, step_remote
from tunnel.core.streams.chunks import Chunk, append_chunk
from tunnel.core.wire.errors import Code, RemoteProtocolError
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.limits import MIB

MAX_CREDIT_AHEAD_BYTES = 1024 * MIB
"""Credit that runs further ahead of what we sent than this is nonsense or an attack on our arithmetic (PROTO 6.2)."""

INTERACTIVE_BYTES = 16 * 1024
"""A stream that sent no more than this lately is interactive: a screenful of a shell, the head of an HTTP exchange."""
INTERACTIVE_HINT_BYTES = 128 * 1024
"""The same bound for a stream whose opener said that it is interactive: a hint buys patience, not a right."""
RECENT_HALF_LIFE_S = 0.25
"""What was sent counts half after this time, so a shell that printed a long listing is soon interactive again."""


@unique
class Send(Symbol):
    """Where the sending half of a stream stands."""

    OPENING = auto()
    """Not accepted yet; early data left with OPEN."""
    OPEN = auto()
    FINISHING = auto()
    """The end is queued behind bytes that still wait."""
    FIN_SENT = auto()
    DONE = auto()
    """The peer acknowledged the packet with FIN."""


@unique
class SendInput(Symbol):
    """What moves it."""

    ACCEPTED = auto()
    DATA = auto()
    FIN = auto()
    STOP = auto()
    FIN_SENT = auto()
    FIN_ACKED = auto()


SEND: dict[tuple[Send, SendInput], Send] = {
    (Send.OPENING, SendInput.ACCEPTED): Send.OPEN,
    (Send.OPEN, SendInput.DATA): Send.OPEN,
    (Send.OPEN, SendInput.FIN): Send.FINISHING,
    (Send.OPEN, SendInput.STOP): Send.FINISHING,
    (Send.FINISHING, SendInput.STOP): Send.FINISHING,
    (Send.FINISHING, SendInput.FIN_SENT): Send.FIN_SENT,
    # A STOP_SENDING may cross our FIN: the peer could not know.
    (Send.FIN_SENT, SendInput.STOP): Send.FIN_SENT,
    (Send.FIN_SENT, SendInput.FIN_ACKED): Send.DONE,
    (Send.DONE, SendInput.STOP): Send.DONE,
}


class SendHalf:
    """Bytes on their way to the peer.

    It finishes when the packet with its FIN is acknowledged: DONE. A reset of the stream, by either side, finishes it
    from any state; then the stream is forgotten, and this with it.
    """

    __slots__ = (
        "_recent_bytes", "_recent_s", "_small_run", "chunks", "credit", "deficit", "fin_seq", "full", "hint", "offset",
        "queued", "scheduled", "state",
    )  # fmt: skip

    def __init__(self, hint: TrafficClass) -> None:
        """`hint` is what the opener said of the traffic."""
        self.state = Send.OPENING
        self.hint = hint
        self.chunks: deque[Chunk] = deque()
        self.queued = 0
        """Bytes that wait."""
        self.offset = 0
        """Bytes that went out."""
        self.credit = 0
        """Bytes that may have gone out, in all."""
        self.full = False
        """The writer was asked to wait, and was not told to go on."""
        self.fin_seq = 0
        """The packet that carries FIN; 0 before there is one."""
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

    @property
    def takes_bytes(self) -> bool:
        """Whether the writer may go on: it is open, and was not finished."""
        return self.state is Send.OPEN

    @property
    def done(self) -> bool:
        """Whether it has finished, and the peer has everything."""
        return self.state is Send.DONE

    def open_up(self) -> None:
        """ACCEPT was sent or received.

        Raises:
            LocalProtocolError: for the second time.
        """
        self.state = step_local(SEND, self.state, SendInput.ACCEPTED)

    def push(self, data: bytes) -> None:
        """Queues bytes. After a STOP_SENDING or a finish by the peer's wish they are dropped: nobody wants them.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self.state in (Send.OPENING, Send.OPEN):
            self.state = step_local(SEND, self.state, SendInput.DATA)
            if data:
                self._small_run = append_chunk(self.chunks, data, self._small_run)
                self.queued += len(data)

    def finish(self) -> None:
        """Queues the end. Saying so twice is allowed, and so is saying it after the peer asked us to stop.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self.state in (Send.OPENING, Send.OPEN):
            self.state = step_local(SEND, self.state, SendInput.FIN)

    def stop(self) -> None:
        """The peer wants no more: drop what waits and let FIN go out."""
        self.state = step_remote(SEND, self.state, SendInput.STOP)
        self.drop()

    def end_taken(self) -> None:
        """FIN goes out: nothing waits before it.

        Raises:
            LocalProtocolError: `finish` was not called.
        """
        self.state = step_local(SEND, self.state, SendInput.FIN_SENT)

    def end_carried(self, seq: int) -> None:
        """FIN is in this packet; sent again, a packet stays what it was."""
        self.fin_seq = seq

    def end_arrived(self) -> None:
        """The peer has FIN."""
        self.state = step_local(SEND, self.state, SendInput.FIN_ACKED)

    def has_room(self, limit_bytes: int) -> bool:
        """Returns whether the writer may go on; if not, `drained` tells when."""
        if self.queued < limit_bytes:
            return True
        self.full = True
        return False

    def drained(self, bound_bytes: int) -> bool:
        """Returns True once when a writer waits and so little is left that it is to go on."""
        if not self.full or self.queued > bound_bytes:
            return False
        self.full = False
        return True

    def grant(self, limit: int) -> None:
        """Takes the peer's absolute credit.

        Raises:
            RemoteProtocolError: it went down, or far beyond reason.
        """
        if limit < self.credit or limit - self.offset > MAX_CREDIT_AHEAD_BYTES:
            raise RemoteProtocolError(f"credit {limit} after {self.credit} at offset {self.offset}", Code.FLOW_CONTROL)
        self.credit = limit

    def take(self, max_bytes: int, now: float) -> bytes:
        """Removes up to `max_bytes` from the queue, within the credit.

        A whole chunk is handed on without a copy; one of more than half of what was asked for is not filled up from the
        next, for which both would be copied.
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
        """Returns whether it goes before bulk: little sent lately and little waiting."""
        if self.hint is TrafficClass.BULK:
            return False
        bound = INTERACTIVE_HINT_BYTES if self.hint is TrafficClass.INTERACTIVE else INTERACTIVE_BYTES
        return self.queued + self._decayed(now) <= bound

    def drop(self) -> None:
        """Forgets what waits."""
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
