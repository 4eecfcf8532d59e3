"""One direction of a relayed connection, and the link direction whose rate and queue all connections share."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque
from dataclasses import asdict, dataclass

READ_BYTES = 256 * 1024
HELD_BYTES = 128 * 1024 * 1024
"""What a direction without a rate may hold for its delay: 1 GB/s for more than 100 ms."""
SHAPED_KERNEL_BYTES = 64 * 1024
"""The receive buffer of a limited direction: the queue that is configured must be the queue that there is."""
TICK_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a link direction does to bytes."""

    delay_s: float = 0.0
    rate_bytes_s: float = 0.0
    """0 is without limit."""
    queue_bytes: int = 1024 * 1024
    """How much may wait for its turn at that rate before the sender is held back."""

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class LinkDirection:
    """The clock of a link direction: when the next byte may leave the router."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.carried_bytes = 0
        self._free_at = 0.0

    def waiting_bytes(self, now: float) -> float:
        """How much is in the router's queue."""
        return max(0.0, (self._free_at - now) * self.shape.rate_bytes_s)

    def room_at(self) -> float:
        """When the queue will take more."""
        return self._free_at - self.shape.queue_bytes / self.shape.rate_bytes_s

    def arrival(self, count: int, now: float) -> float:
        """When `count` bytes that enter the queue now reach the far end."""
        departure = now
        if self.shape.rate_bytes_s:
            departure = self._free_at = max(now, self._free_at) + count / self.shape.rate_bytes_s
        return departure + self.shape.delay_s

    def read_bytes(self) -> int:
        """How much to take at once: little on a slow link, so that connections take turns."""
        if not self.shape.rate_bytes_s:
            return READ_BYTES
        return min(READ_BYTES, max(1448, int(self.shape.rate_bytes_s * TICK_S)))


class Pipe:
    """Bytes from one socket to another, through a link direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, link: LinkDirection) -> None:
        self.source = source
        self.sink = sink
        self.link = link
        self.queue: deque[tuple[float, memoryview | None]] = deque()
        """Arrival time and bytes; None is the end."""
        self.held_bytes = 0
        self.blocked = False
        """The sink takes no more for now."""
        self.source_ended = self.finished = self.lost = False
        self._last_arrival = 0.0
        self._buffer = bytearray(READ_BYTES)
        self.bound_kernel_buffer()

    def bound_kernel_buffer(self) -> None:
        if self.link.shape.rate_bytes_s:
            with contextlib.suppress(OSError):
                self.source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SHAPED_KERNEL_BYTES)

    def wants_read(self, now: float) -> bool:
        return (
            not self.source_ended
            and not self.blocked
            and self.held_bytes < HELD_BYTES
            and (not self.link.shape.rate_bytes_s or self.link.waiting_bytes(now) < self.link.shape.queue_bytes)
        )

    def next_due(self, now: float) -> float | None:
        """When something must be delivered, or may be read, though no socket says so."""
        times = []
        if self.queue and not self.blocked:
            times.append(self.queue[0][0])
        if not self.source_ended and not self.blocked and not self.wants_read(now) and self.held_bytes < HELD_BYTES:
            times.append(self.link.room_at())
        return min(times) if times else None

    def receive(self, now: float) -> None:
        """Take what the source has, once; pass it on at once when nothing holds it."""
        limit = self.link.read_bytes()
        shape = self.link.shape
        try:
            count = self.source.recv_into(self._buffer, limit)
        except BlockingIOError:
            return
        arrival = max(self._last_arrival, self.link.arrival(count, now))
        self._last_arrival = arrival
        self.link.carried_bytes += count
        if not count:
            self.source_ended = True
            self.queue.append((arrival, None))
            return
        sent = 0
        if not (self.queue or shape.delay_s or shape.rate_bytes_s):
            with contextlib.suppress(BlockingIOError):
                sent = self.sink.send(memoryview(self._buffer)[:count])
        if sent < count:
            self.queue.append((arrival, memoryview(bytes(memoryview(self._buffer)[sent:count]))))
            self.held_bytes += count - sent

    def deliver(self, now: float) -> None:
        """Write what has arrived."""
        self.blocked = False
        while self.queue and self.queue[0][0] <= now:
            _, data = self.queue.popleft()
            if data is None:
                self.finish()
                return
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.held_bytes -= sent
            if sent < len(data):
                self.queue.appendleft((0.0, data[sent:]))
                self.blocked = True
                return

    def swallow(self) -> None:
        """Lose what the source has."""
        self.lost = True
        self.discard()

    def discard(self) -> None:
        """Throw away what the source has."""
        with contextlib.suppress(BlockingIOError):
            self.source_ended = self.source_ended or not self.source.recv_into(self._buffer)

    def finish(self) -> None:
        """Say to the sink that this is all."""
        self.finished = True
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)


def reset_socket(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer sees a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
