"""The receive window of one stream: what the peer may send, when it is told, and how the window grows (PROTO 6.2)."""

from __future__ import annotations

from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import LocalProtocolError
from tunnel.core.wire.limits import MIB

MAX_GRANT_BYTES = 2 * MIB
"""The most credit that is saved up: a wide window that gives half of itself at once is as good as half as wide."""
PROVEN_WINDOWS = 64
"""How many times a window must have been read before it grows where memory is short. One of the least size, 4 KiB, has
512 KiB to prove itself: sockets of the kernel alone take some 200.
"""
FAST_REFILL_RTTS = 4.0
"""A window used up within so many round trips is what limits the stream, so it is doubled (HashiCorp yamux, QUIC)."""


class ReceiveWindow:
    """The credit that the peer has for one direction, in absolute offsets.

    Invariants: consumed <= received <= granted, and granted - consumed <= size <= what was reserved from the budget.
    """

    __slots__ = ("_budget", "_last_grant_s", "consumed", "granted", "max_bytes", "received", "size_bytes")

    def __init__(self, size_bytes: int, max_bytes: int, budget: Budget) -> None:
        """`size_bytes` is already reserved from `budget`; it is given back by `close`."""
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes
        self.granted = size_bytes
        self.received = 0
        self.consumed = 0
        self._budget = budget
        self._last_grant_s: float | None = None

    def receive(self, count: int) -> bool:
        """Counts bytes that arrived; returns False when they lie beyond what was granted."""
        self.received += count
        return self.received <= self.granted

    def consume(self, count: int, now: float, rtt_s: float) -> int | None:
        """Counts bytes that the local reader took; returns the new absolute credit to send, or None while none is due.

        Credit goes out at half a window, or `MAX_GRANT_BYTES`: later would stall the sender, sooner would cost a frame
        for every read.

        Raises:
            LocalProtocolError: more than arrived.
        """
        if not 0 <= count <= self.received - self.consumed:
            raise LocalProtocolError(f"{count} bytes consumed of {self.received - self.consumed}")
        self.consumed += count
        grant = min(self.size_bytes // 2, MAX_GRANT_BYTES)
        if self.granted - self.consumed > self.size_bytes - grant:
            return None
        self._tune(self.size_bytes - (self.granted - self.consumed), now, rtt_s)
        self._last_grant_s = now
        self.granted = self.consumed + self.size_bytes
        return self.granted

    def close(self) -> None:
        """Gives the reserved memory back. The window may not be used after it."""
        self._budget.release(self.size_bytes)
        self.size_bytes = 0

    def _tune(self, used: int, now: float, rtt_s: float) -> None:
        """Doubles the window if all of it would be used up fast, as `used` of it were since the last grant.

        That is more than a grant where bytes come in bursts, which is how each of several streams gets them.
        """
        last = self._last_grant_s
        fast = last is not None and (now - last) * self.size_bytes < FAST_REFILL_RTTS * rtt_s * used
        extra = min(self.size_bytes, self.max_bytes - self.size_bytes)
        if fast and extra > 0:
            proven = self.consumed >= PROVEN_WINDOWS * (self.size_bytes + extra)
            if self._budget.try_grow(extra, proven=proven):
                self.size_bytes += extra
