"""Bounds how much memory receive windows may promise: a pool for a session under a pool for the process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Budget:
    """A pool of bytes that windows are reserved from.

    A promised window cannot be taken back: the peer may fill it. So windows of streams that have shown nothing yet come
    from the first three eighths only. Growth, earned by reading, takes at most half of what is left above an eighth,
    which is for the least windows of streams to come. However many readers stall, one that reads finds room to grow,
    and one that comes is let in; even when those that stall had read for a while, and grown, before.
    """

    total_bytes: int
    """The size of the pool; 0 refuses every reservation."""
    parent: Budget | None = None
    """The process's pool above this one, a session's; None when there is none."""
    used_bytes: int = 0

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

    def try_grow(self, extra_bytes: int) -> bool:
        """Reserves more for a stream that used its window up, if as much again is left for others.

        Returns whether it did.
        """
        if extra_bytes > self._room_to_grow() // 2:
            return False
        self.reserve(extra_bytes)
        return True

    def reserve(self, count: int) -> None:
        """Takes bytes from here and from the pools above, without asking whether they are there."""
        self.used_bytes += count
        if self.parent is not None:
            self.parent.reserve(count)

    def release(self, count: int) -> None:
        """Gives back bytes that were reserved, here and in the pools above."""
        self.used_bytes -= count
        if self.parent is not None:
            self.parent.release(count)

    # Internal

    def _room_for_new(self) -> int:
        own = max(0, self.total_bytes * 3 // 8 - self.used_bytes)
        return own if self.parent is None else min(own, self.parent._room_for_new())

    def _room_to_grow(self) -> int:
        own = self.total_bytes - self.total_bytes // 8 - self.used_bytes
        return own if self.parent is None else min(own, self.parent._room_to_grow())
