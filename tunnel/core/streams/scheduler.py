"""Fills the next packet: control, then interactive streams, then bulk by deficit round robin (PROTO 6.3).

A turn of bulk is a packet, not a frame. On a fast link it holds eight frames: for one stream they are one write to one
socket, and whoever reads there wakes once; for eight streams, a write and a wake each. On a slow link a packet is no
more than a frame. A turn takes as long on each: what `pacing.py` lets a packet take.

Deficit round robin: M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", 1996.
"""

from __future__ import annotations

from collections import deque

from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire import frames as f
from tunnel.core.wire.codec import FRAME_OVERHEAD_BYTES
from tunnel.core.wire.limits import KIB

CONTROL_FRAME_BYTES = 56
"""The most bytes that a control frame without texts adds to a packet: OPEN with every number at its longest."""
OPEN_TEXTS_BYTES = 24
"""What protobuf adds to the texts of an OPEN: tags and lengths of a principal, its name and proof, and an agent."""
PACKET_OVERHEAD_BYTES = 32
"""The most bytes that Envelope and Packet add to their frames."""
FIN_FRAME_BYTES = 16
TURN_OVERHEAD_BYTES = FRAME_OVERHEAD_BYTES + FIN_FRAME_BYTES
"""The most bytes that a turn of one stream adds to its data."""
MAX_SENT_FRAMES = 512
MAX_CONTROL_BYTES = 24 * KIB
"""The most frames that a packet is given, and bytes of control frames. Together with what frames of DATA and FIN add,
TURN_OVERHEAD_BYTES each, that is 44 KiB beside data; a peer takes 64 (PROTO 2.6).
"""
LEAST_CUT_BYTES = 512
"""No frame is cut shorter to fill up a packet or a turn: to cut is to copy both parts, and the rest may go alone."""
HOLD_S = 0.001
"""How many seconds an ACCEPT may wait for what its target answers to the stream's early data (PROTO 5.3). Nobody waits
for the ACCEPT alone: the opener's first bytes are with the target. In one packet with the answer, it spares a message.
"""


class Scheduler:
    """The queues of control frames, and of streams that have something to send."""

    def __init__(self) -> None:
        self.control: deque[f.Frame] = deque()
        self.held_until_s: float | None = None
        """When frames that were held go out even with nothing beside them; None while there are none."""
        self._held: list[f.Frame] = []
        self._given_up: set[int] = set()
        """The streams whose OPEN still lies in `control`, and is not sent: they were given up before it could be."""
        self._credits: dict[int, int] = {}
        self._interactive: deque[CoreStream] = deque()
        self._bulk: deque[CoreStream] = deque()
        self.taken_bytes = 0
        """How many bytes of streams' queues the last packet has."""

    @property
    def control_frames(self) -> int:
        """Returns how many control frames wait. Credits are not counted: a stream has one at most."""
        return len(self.control) - len(self._given_up) + len(self._held)

    @property
    def has_control(self) -> bool:
        """Returns whether a control frame is ready to go out; one that is held is not."""
        return bool(len(self.control) > len(self._given_up) or self._credits)

    def on_timer(self, now: float) -> None:
        """Releases the frames that were held once they have waited long enough."""
        if self.held_until_s is not None and self.held_until_s <= now:
            self._release()

    @property
    def has_interactive(self) -> bool:
        """Returns whether an interactive stream has something to send."""
        return bool(self._interactive)

    @property
    def has_bulk(self) -> bool:
        """Returns whether a bulk stream has something to send."""
        return bool(self._bulk)

    @property
    def ready_streams(self) -> int:
        """Returns how many streams have something to send."""
        return len(self._interactive) + len(self._bulk)

    def hold(self, frame: f.Frame, now: float) -> None:
        """Queues a control frame that goes with the next packet. Within HOLD_S, no packet need be made for it alone."""
        self._held.append(frame)
        if self.held_until_s is None:
            self.held_until_s = now + HOLD_S

    def add_credit(self, stream_id: int, limit: int) -> None:
        """Queues a credit; a newer one for the same stream takes the place of one that still waits."""
        self._credits[stream_id] = limit

    def add_stream(self, stream: CoreStream, now: float) -> None:
        """Queues a stream that became ready; nothing happens when it is queued already or not ready."""
        if stream.send.scheduled or not stream.send.ready:
            return
        stream.send.scheduled = True
        stream.send.deficit = 0
        (self._interactive if stream.send.interactive(now) else self._bulk).append(stream)

    def remove_open(self, stream_id: int) -> None:
        """Forgets the OPEN of a stream that was given up before it could be sent. It must be in the queue.

        It is only marked: thousands of clients may give up on a link that is down, one by one. Once half of the queue
        is marked, all of these go at once, so that each costs the same however many there are.
        """
        given_up = self._given_up
        given_up.add(stream_id)
        if 2 * len(given_up) > len(self.control):
            kept = (one for one in self.control if type(one) is not f.Open or one.stream_id not in given_up)
            self.control = deque(kept)
            given_up.clear()

    def remove_stream(self, stream: CoreStream) -> None:
        """Forgets a stream that was reset, with the credit that waits for it."""
        self._credits.pop(stream.id, None)
        if stream.send.scheduled:
            stream.send.scheduled = False
            for queue in (self._interactive, self._bulk):
                if stream in queue:
                    queue.remove(stream)

    def take(self, room_bytes: int, max_data_bytes: int, now: float, *, interactive: bool, bulk: bool) -> list[f.Frame]:
        """Returns the frames of the next packet.

        It is no longer than `room_bytes` (at least 1400) but for a single control frame that does not fit. Classes that
        the pacer holds back are left waiting.
        """
        frames: list[f.Frame] = []
        self.taken_bytes = 0
        room = room_bytes - PACKET_OVERHEAD_BYTES
        turn = room - TURN_OVERHEAD_BYTES
        frame = min(max_data_bytes, turn)
        room = self._take_control(frames, room)
        if interactive:
            room = self._take_streams(self._interactive, frames, room, frame, frame, now)
        if bulk:
            self._take_streams(self._bulk, frames, room, frame, turn, now)
        return frames

    def _take_control(self, frames: list[f.Frame], room: int) -> int:
        if self._held:
            self._release()
        if not self.control and not self._credits:
            return room
        kept_free = max(0, room - MAX_CONTROL_BYTES)
        room -= kept_free
        while self.control and len(frames) < MAX_SENT_FRAMES:
            if self._given_up and self._drop_given_up():
                continue
            size = _control_bytes(self.control[0])
            if size > room and frames:
                return 0
            frames.append(self.control.popleft())
            room -= size
        while self._credits and room >= CONTROL_FRAME_BYTES and len(frames) < MAX_SENT_FRAMES:
            stream_id = next(iter(self._credits))
            frames.append(f.Credit(stream_id, self._credits.pop(stream_id)))
            room -= CONTROL_FRAME_BYTES
        return room + kept_free

    def _drop_given_up(self) -> bool:
        """Drops the first control frame if it is the OPEN of a stream that was given up; returns whether it was."""
        first = self.control[0]
        if type(first) is not f.Open or first.stream_id not in self._given_up:
            return False
        self._given_up.remove(first.stream_id)
        self.control.popleft()
        return True

    def _release(self) -> None:
        """Queues the held frames ahead of all that was queued for their streams since."""
        self.control.extendleft(reversed(self._held))
        self._held.clear()
        self.held_until_s = None

    def _take_streams(
        self, queue: deque[CoreStream], frames: list[f.Frame], room: int, frame: int, turn: int, now: float
    ) -> int:
        """Takes turns of one class, `turn` bytes each in frames of at most `frame`, and returns the room that is left.

        A turn that the packet's room cut short goes on in the next packet.
        """
        while queue and room > TURN_OVERHEAD_BYTES and len(frames) + 1 < MAX_SENT_FRAMES:
            stream = queue[0]
            half = stream.send
            if queue is self._interactive and not half.interactive(now):
                queue.popleft()
                self._bulk.append(stream)
                continue
            if half.deficit < LEAST_CUT_BYTES:
                half.deficit = turn
            count = min(half.deficit, half.ready_bytes, room - TURN_OVERHEAD_BYTES, frame)
            if frames and count < min(half.ready_bytes, LEAST_CUT_BYTES):
                break
            if count > 0:
                frames.append(f.Data(stream.id, data := half.take(count, now)))
                count = len(data)
                half.deficit -= count
                self.taken_bytes += count
            room -= count + TURN_OVERHEAD_BYTES
            self._after_turn(queue, stream, frames)
        return room

    def _after_turn(self, queue: deque[CoreStream], stream: CoreStream, frames: list[f.Frame]) -> None:
        half = stream.send
        if half.ready_bytes > 0:
            if half.deficit < LEAST_CUT_BYTES:
                queue.rotate(-1)
            return
        queue.popleft()
        half.scheduled = False
        if half.ready:  # nothing but the end is left
            half.end_taken()
            frames.append(f.Fin(stream.id))


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _open_bytes(frame: f.Open) -> int:
    who = frame.principal
    texts = (str(frame.target), who.name, who.proof, *who.groups, frame.principal_text, frame.trace_id, frame.agent)
    overhead = CONTROL_FRAME_BYTES + OPEN_TEXTS_BYTES + 3 * len(who.groups)
    return overhead + sum(map(_text_bytes, texts)) + len(frame.early_data)


def _control_bytes(frame: f.Frame) -> int:
    match frame:
        case f.Reset() | f.GoAway():
            return CONTROL_FRAME_BYTES + _text_bytes(frame.text)
        case f.Open():
            return _open_bytes(frame)
        case f.Accept():
            return CONTROL_FRAME_BYTES + _text_bytes(frame.resolved_address)
        case _:
            return CONTROL_FRAME_BYTES
