"""The sending half of a stream: bytes on their way to the peer, in order, within its credit, to their end (PROTO 5, 6).

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
    """The states of the sending half of a stream."""

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
    """What changes the state of a sending half."""

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
    """The bytes of one stream on their way to the peer.

    It finishes when the packet with its FIN is acknowledged: DONE. A reset of the stream, by either side, finishes it
    from any state; then the stream is forgotten, and this with it.
    """

    __slots__ = (
        "_recent_bytes", "_recent_s", "_small_run", "chunks", "credit", "deficit", "fin_seq", "full", "hint", "offset",
        "queued", "resume_bytes", "room_until", "scheduled", "state",
    )  # fmt: skip

    def __init__(self, hint: TrafficClass) -> None:
        """`hint` is what the opener said of the traffic."""
        self.state = Send.OPENING
        self.hint = hint
        self.chunks: list[Chunk] = []
        self.queued = 0
        """How many bytes wait to go out."""
        self.offset = 0
        """How many bytes went out so far."""
        self.credit = 0
        """How many bytes may go out in all, those that went out included."""
        self.full = False
        """Whether the writer was asked to wait, and was not told to go on."""
        self.resume_bytes = 0
        """How many bytes may be left when a writer that waits is told to go on."""
        self.room_until = 0
        """Up to how many bytes that wait its reader of a socket was promised room; 0: it has not asked since."""
        self.fin_seq = 0
        """The number of the packet that carries FIN; 0 before there is one."""
        # The scheduler's own two: what this stream may still send in its turn, and whether it stands in a queue.
        self.deficit = 0
        self.scheduled = False
        self._recent_bytes = 0.0
        self._recent_s = 0.0
        self._small_run = 0

    @property
    def ready_bytes(self) -> int:
        """Returns how many bytes could go out now."""
        return min(self.queued, self.credit - self.offset)

    @property
    def ready(self) -> bool:
        """Returns whether there is something to send now: bytes within the credit, or a FIN with nothing before it."""
        return self.ready_bytes > 0 or (self.state is Send.FINISHING and self.queued == 0)

    @property
    def takes_bytes(self) -> bool:
        """Returns whether the writer may write: this half is open, and was not finished."""
        return self.state is Send.OPEN

    @property
    def done(self) -> bool:
        """Returns whether this half has finished and the peer has everything."""
        return self.state is Send.DONE

    def open_up(self) -> None:
        """Opens this half: ACCEPT was sent or received.

        Raises:
            LocalProtocolError: it is open already.
        """
        self.state = step_local(SEND, self.state, SendInput.ACCEPTED)

    def push(self, data: bytes) -> int:
        """Queues bytes and returns how many. After a STOP_SENDING or a finish they are dropped: nobody wants them.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self.state not in (Send.OPENING, Send.OPEN):
            return 0
        self.state = step_local(SEND, self.state, SendInput.DATA)
        if data:
            self._small_run = append_chunk(self.chunks, data, self._small_run)
            self.queued += len(data)
        return len(data)

    def finish(self) -> None:
        """Queues the end of this direction. It may be called twice, and after the peer asked us to stop.

        Raises:
            LocalProtocolError: the stream is not connected yet.
        """
        if self.state in (Send.OPENING, Send.OPEN):
            self.state = step_local(SEND, self.state, SendInput.FIN)

    def stop(self) -> int:
        """Takes the peer's STOP_SENDING: drops what waits and returns how many bytes, and lets FIN go out.

        Raises:
            RemoteProtocolError: the stream is not connected yet.
        """
        self.state = step_remote(SEND, self.state, SendInput.STOP)
        return self.drop()

    def end_taken(self) -> None:
        """Notes that FIN goes out: nothing waits before it.

        Raises:
            LocalProtocolError: `finish` was not called.
        """
        self.state = step_local(SEND, self.state, SendInput.FIN_SENT)

    def end_carried(self, seq: int) -> None:
        """Takes the number of the packet that carries FIN.

        It is final, since a packet that is sent again stays what it was.
        """
        self.fin_seq = seq

    def end_arrived(self) -> None:
        """Notes that the peer has acknowledged FIN.

        Raises:
            LocalProtocolError: FIN was not sent.
        """
        self.state = step_local(SEND, self.state, SendInput.FIN_ACKED)

    def has_room(self, limit_bytes: int) -> bool:
        """Returns whether fewer than `limit_bytes` wait, so that the writer may go on; if not, `drained` tells when
        half of them are gone.
        """
        if self.queued < limit_bytes:
            return True
        self.full = True
        self.resume_bytes = limit_bytes // 2
        return False

    def drained(self) -> bool:
        """Returns True once when a writer waits and no more than `resume_bytes` are left, so that it is to go on."""
        if not self.full or self.queued > self.resume_bytes:
            return False
        self.full = False
        return True

    def grant(self, limit: int) -> None:
        """Takes the credit of the peer: how many bytes of this stream may go out in all.

        Raises:
            RemoteProtocolError: it went down, or far beyond reason.
        """
        if limit < self.credit or limit - self.offset > MAX_CREDIT_AHEAD_BYTES:
            raise RemoteProtocolError(f"credit {limit} after {self.credit} at offset {self.offset}", Code.FLOW_CONTROL)
        self.credit = limit

    def take(self, max_bytes: int, now: float) -> bytes:
        """Removes up to `max_bytes` from the queue, within the credit, and returns them.

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
            del self.chunks[0]
            return bytes(head)
        if len(head) > count:
            view = memoryview(head)
            # A rest that has to wait for credit may wait long, and a view of it holds the memory of all.
            self.chunks[0] = view[count:] if self.offset < self.credit else bytes(view[count:])
            return bytes(view[:count])
        return self._join(count)

    def interactive(self, now: float) -> bool:
        """Returns whether the stream goes before bulk: little was sent lately, and little waits.

        Where memory is short little waits of every stream. Then one whose writer waits has more.
        """
        if self.hint is TrafficClass.BULK or (self.full and self.hint is TrafficClass.AUTO):
            return False
        bound = INTERACTIVE_HINT_BYTES if self.hint is TrafficClass.INTERACTIVE else INTERACTIVE_BYTES
        return self.queued + self._decayed(now) <= bound

    def drop(self) -> int:
        """Drops the bytes that wait and returns how many."""
        self.chunks.clear()
        count, self.queued = self.queued, 0
        return count

    def _join(self, count: int) -> bytes:
        whole = 0
        while count > 0 and len(self.chunks[whole]) <= count:
            count -= len(self.chunks[whole])
            whole += 1
        parts = self.chunks[:whole]
        del self.chunks[:whole]
        if count > 0:
            view = memoryview(self.chunks[0])
            parts.append(view[:count])
            self.chunks[0] = view[count:] if self.offset < self.credit else bytes(view[count:])
        return b"".join(parts)

    def _decayed(self, now: float) -> float:
        return self._recent_bytes * math.exp2((self._recent_s - now) / RECENT_HALF_LIFE_S)

    def _note_sent(self, count: int, now: float) -> None:
        self._recent_bytes = self._decayed(now) + count
        self._recent_s = now
