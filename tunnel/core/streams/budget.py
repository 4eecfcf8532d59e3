"""Bounds how much memory streams may take: a pool for a session under a pool for the process (PROTO 6.2).

Three things come from it: receive windows, which are promised to the peer; bytes that wait in send queues; and packets
that are kept until they are acknowledged. What was promised or taken in cannot be taken back, so that each is given
less while less is left.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Budget:
    """A pool of bytes that windows are reserved from, and that queues and kept packets are counted in.

    Windows of streams that have shown nothing yet come from the first three eighths only. Growth, earned by reading,
    takes at most half of what is left above a quarter, which is for the least windows of streams to come: 20 MiB of a
    session's 80, and 4096 streams need 16. However many readers stall, one that reads finds room to grow, and one
    that comes is let in; even when those that stall had read for a while, and grown, before.

    Queues are not refused, since their bytes were read already: whoever reads asks first for how many (`rooms`). What
    is held beyond its part is so no more than the least queue of each stream.
    """

    total_bytes: int
    """The size of the pool; 0 refuses every reservation."""
    parent: Budget | None = None
    """The process's pool above this one, a session's; None when there is none."""
    reserved_bytes: int = 0
    """Bytes that windows promise."""
    held_bytes: int = 0
    """Bytes that wait to be sent, or are kept until they are acknowledged."""

    @property
    def used_bytes(self) -> int:
        """Returns how many bytes are reserved or held."""
        return self.reserved_bytes + self.held_bytes

    @property
    def available_bytes(self) -> int:
        """Returns how many bytes may still be reserved here and in the pools above."""
        own = max(0, self.total_bytes - self.used_bytes)
        return own if self.parent is None else min(own, self.parent.available_bytes)

    def initial_window(self, wanted_bytes: int, floor_bytes: int) -> int:
        """Reserves the window of a new stream and returns its bytes; 0 when all is gone.

        It is up to what is wanted while the part for new windows lasts, and the floor after that.
        """
        window = max(floor_bytes, min(wanted_bytes, self._room_for_new() // 32))
        if window > self.available_bytes:
            return 0
        self.reserve(window)
        return window

    def try_grow(self, extra_bytes: int, *, proven: bool) -> bool:
        """Reserves more for a stream that used its window up, if as much again is left for others.

        Of what is left at last, a quarter of the pool, more is given only to one that is `proven` to read on and on: a
        reader that has just stalled has read as fast before, while the kernel's buffers were filled.

        Returns whether it did.
        """
        room = self.rooms()[0]
        if extra_bytes > room // 2 or (not proven and room - extra_bytes < self.total_bytes // 4):
            return False
        self.reserve(extra_bytes)
        return True

    def rooms(self) -> tuple[int, int]:
        """Returns how many bytes are left above the quarter for the least windows, and how many of the eighth for what
        waits in queues of peers that do not take it. Both are less than 0 for none.
        """
        total, parent = self.total_bytes, self.parent
        to_grow, to_wait = total - total // 4 - self.used_bytes, total // 8 - self.held_bytes
        if parent is None:
            return to_grow, to_wait
        others_to_grow, others_to_wait = parent.rooms()
        return min(to_grow, others_to_grow), min(to_wait, others_to_wait)

    def reserve(self, count: int) -> None:
        """Takes bytes from here and from the pools above, without asking whether they are there."""
        self.reserved_bytes += count
        if self.parent is not None:
            self.parent.reserve(count)

    def release(self, count: int) -> None:
        """Gives back bytes that were reserved, here and in the pools above."""
        self.reserved_bytes -= count
        if self.parent is not None:
            self.parent.release(count)

    def hold(self, count: int) -> None:
        """Counts bytes that wait to be sent or acknowledged, here and in the pools above; less than 0 lets them go."""
        self.held_bytes += count
        if self.parent is not None:
            self.parent.hold(count)

    # Internal

    def _room_for_new(self) -> int:
        """Returns what is left of the part for new windows. What is held counts where growth would be refused, too."""
        own = max(0, min(self.total_bytes * 3 // 8 - self.reserved_bytes, self.rooms()[0]))
        return own if self.parent is None else min(own, self.parent._room_for_new())
