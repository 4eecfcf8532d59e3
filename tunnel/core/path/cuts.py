"""Tells whether a queue shrinks when less is put in flight. A queue that does not is not of our making."""

from __future__ import annotations

from typing import NamedTuple

REAL_CUT = 0.5
"""The share that in flight must have shrunk to before a delay that stayed is held against the path."""


class _Cut(NamedTuple):
    """A queue that was too long, and what was in flight with it."""

    rtt_s: float
    in_flight_bytes: int
    window_bytes: float
    """The window before it was cut for this queue."""


class Cuts:
    """The cuts in a row that were made for one queue. They are judged by the queue when it was longest."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: _Cut | None = None

    def forget(self) -> None:
        """Forgets the row, so that the next cut is the first of another: the queue is gone, or the path is another."""
        self._first = None

    def in_vain(self, rtt_s: float, in_flight_bytes: int, window_bytes: float) -> float | None:
        """Tells whether the cuts so far were in vain.

        It is called for a queue that is too long, before the window is cut.

        Args:
            rtt_s: the round trip with this queue.
            in_flight_bytes: what was in flight when it was met, more than 0.
            window_bytes: the window now.

        Returns:
            The window from before the first cut, when the cuts since did not shrink the queue as they shrank what is in
            flight: it was not theirs. None: cut.
        """
        cut = self._first
        if cut is None:
            self._first = _Cut(rtt_s, in_flight_bytes, window_bytes)
            return None
        share = in_flight_bytes / cut.in_flight_bytes
        if share > REAL_CUT:
            if rtt_s > cut.rtt_s:
                self._first = _Cut(rtt_s, in_flight_bytes, cut.window_bytes)
            return None
        if rtt_s <= cut.rtt_s * (1.0 + share) / 2:
            self._first = _Cut(rtt_s, in_flight_bytes, window_bytes)
            return None
        self._first = None
        return cut.window_bytes
