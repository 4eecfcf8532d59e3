"""What goes into the next packet: control, then interactive streams, then bulk by deficit round robin (PROTO 6.3).

Deficit round robin: M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", 1996.
"""

from __future__ import annotations

from collections import deque

from tunnel.core import frames as f
from tunnel.core.codec import FRAME_OVERHEAD_BYTES
from tunnel.core.limits import MAX_FRAMES
from tunnel.core.states import SEND, Input, step_local
from tunnel.core.stream import CoreStream

CONTROL_FRAME_BYTES = 48
"""What a control frame without texts adds to a packet at most."""


class Scheduler:
    """Queues of control frames and of streams that have something to send."""

    def __init__(self) -> None:
        self.control: deque[f.Frame] = deque()
        self._credits: dict[int, int] = {}
        self._interactive: deque[CoreStream] = deque()
        self._bulk: deque[CoreStream] = deque()

    @property
    def has_control(self) -> bool:
        """Whether a control frame waits."""
        return bool(self.control or self._credits)

    @property
    def has_interactive(self) -> bool:
        """Whether an interactive stream has something to send."""
        return bool(self._interactive)

    @property
    def has_bulk(self) -> bool:
        """Whether a bulk stream has something to send."""
        return bool(self._bulk)

    def add_credit(self, stream_id: int, limit: int) -> None:
        """Queue a credit; a newer one for the same stream takes the place of one that still waits."""
        self._credits[stream_id] = limit

    def add_stream(self, stream: CoreStream, now: float) -> None:
        """Queue a stream that became ready; nothing happens when it is queued already or not ready."""
        if stream.send.scheduled or not stream.send.ready:
            return
        stream.send.scheduled = True
        stream.send.deficit = 0
        (self._interactive if stream.send.interactive(now) else self._bulk).append(stream)

    def remove_opens(self, stream_ids: set[int]) -> None:
        """Forget the OPENs of streams that were given up before they could be sent."""
        self.control = deque(one for one in self.control if type(one) is not f.Open or one.stream_id not in stream_ids)

    def remove_stream(self, stream: CoreStream) -> None:
        """Forget a stream that was reset, with the credit that waits for it."""
        self._credits.pop(stream.id, None)
        if stream.send.scheduled:
            stream.send.scheduled = False
            for queue in (self._interactive, self._bulk):
                if stream in queue:
                    queue.remove(stream)

    def take(self, room_bytes: int, max_data_bytes: int, now: float, *, interactive: bool, bulk: bool) -> list[f.Frame]:
        """The frames of the next packet, about `room_bytes` of them; classes that the pacer holds back are left
        waiting.
        """
        frames: list[f.Frame] = []
        room = self._take_control(frames, room_bytes)
        if interactive:
            room = self._take_streams(self._interactive, frames, room, max_data_bytes, now)
        if bulk:
            self._take_streams(self._bulk, frames, room, max_data_bytes, now)
        return frames

    def _take_control(self, frames: list[f.Frame], room: int) -> int:
        while self.control and room > 0 and len(frames) < MAX_FRAMES:
            frame = self.control.popleft()
            frames.append(frame)
            room -= _control_bytes(frame)
        while self._credits and room > 0 and len(frames) < MAX_FRAMES:
            stream_id = next(iter(self._credits))
            frames.append(f.Credit(stream_id, self._credits.pop(stream_id)))
            room -= CONTROL_FRAME_BYTES
        return room

    def _take_streams(
        self, queue: deque[CoreStream], frames: list[f.Frame], room: int, quantum: int, now: float
    ) -> int:
        """Turns of one class, a quantum each; a turn that the packet's room cut short goes on in the next packet."""
        while queue and room > 0 and len(frames) + 1 < MAX_FRAMES:
            stream = queue[0]
            half = stream.send
            if queue is self._interactive and not half.interactive(now):
                queue.popleft()
                self._bulk.append(stream)
                continue
            if half.deficit <= 0:
                half.deficit = quantum
            count = min(half.deficit, half.ready_bytes, room, quantum)
            if count > 0:
                frames.append(f.Data(stream.id, half.take(count, now)))
                half.deficit -= count
                room -= count + FRAME_OVERHEAD_BYTES
            self._after_turn(queue, stream, frames)
        return room

    def _after_turn(self, queue: deque[CoreStream], stream: CoreStream, frames: list[f.Frame]) -> None:
        half = stream.send
        if half.ready_bytes > 0:
            if half.deficit <= 0:
                queue.rotate(-1)
            return
        queue.popleft()
        half.scheduled = False
        if half.ready:  # nothing but the end is left
            half.state = step_local(SEND, half.state, Input.FIN_SENT)
            frames.append(f.Fin(stream.id))


def _control_bytes(frame: f.Frame) -> int:
    match frame:
        case f.Reset() | f.GoAway():
            return CONTROL_FRAME_BYTES + len(frame.text)
        case f.Open():
            return CONTROL_FRAME_BYTES + len(str(frame.target)) + len(frame.principal) + len(frame.trace_id)
        case f.Accept():
            return CONTROL_FRAME_BYTES + len(frame.resolved_address)
        case _:
            return CONTROL_FRAME_BYTES
