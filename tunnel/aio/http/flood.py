"""Bounds what a client may make us do without moving any bytes: floods of pings, settings, empty frames, resets."""

from __future__ import annotations

BURST_BYTES = 64 * 1024
"""Bytes that may come at once. They are 7,000 of the smallest frames, which take us about a fifth of a second."""
REFILL_BYTES_PER_S = 64 * 1024.0
RESET_BYTES = 256
"""Bytes that a reset counts beside its frame: it ends a dial at an agent. A client may cancel 200 at once."""
EARNED_PER_FRAME_BYTES = 64
"""Bytes that a DATA frame from us entitles the client to: a window update each for stream and connection, and a ping.
"""
EARNED_SHARE = 16
"""The number of payload bytes in a DATA frame from us that entitle the client to one byte more."""


class FloodGuard:
    """The allowance of one client, in bytes of frames that are no payload. It fills with time and with payload that is
    moved.
    """

    def __init__(self, now_s: float, burst_bytes: int = BURST_BYTES) -> None:
        """Begins with a full allowance. `burst_bytes` is how much may come at once; a long head has to fit into it."""
        self._burst_bytes = burst_bytes
        self._left = float(burst_bytes)
        self._at_s = now_s

    def widen(self, burst_bytes: int) -> None:
        """Lets `burst_bytes` come at once from now on, instead of fewer."""
        self._left += burst_bytes - self._burst_bytes
        self._burst_bytes = burst_bytes

    def received(self, total_bytes: int, payload_bytes: int, resets: int, now_s: float) -> bool:
        """Counts what came in. Returns False when the allowance is used up."""
        refilled = (now_s - self._at_s) * REFILL_BYTES_PER_S
        self._at_s = now_s
        overhead = total_bytes - 2 * payload_bytes + resets * RESET_BYTES
        self._left = min(min(self._left + refilled, self._burst_bytes) - overhead, self._burst_bytes)
        return self._left >= 0

    def sent(self, payload_bytes: int) -> None:
        """Counts a DATA frame that went out, which entitles the client to more."""
        self._left += EARNED_PER_FRAME_BYTES + payload_bytes / EARNED_SHARE
