"""How much a client may make us do without moving any bytes: floods of pings, settings, empty frames, resets."""

from __future__ import annotations

BURST_BYTES = 64 * 1024
"""7,000 of the smallest frames, which take us about a fifth of a second."""
REFILL_BYTES_PER_S = 64 * 1024.0
RESET_BYTES = 256
"""What a reset costs beside its frame: it ends a dial at an agent. A client may cancel 200 at once."""
EARNED_PER_FRAME_BYTES = 64
"""What a DATA frame from us entitles the client to: a window update each for stream and connection, and a ping."""
EARNED_SHARE = 16
"""And a byte more for so many bytes in it."""


class FloodGuard:
    """An allowance, in bytes of frames that are no payload: it fills with time and with payload that is moved."""

    def __init__(self, now_s: float, burst_bytes: int = BURST_BYTES) -> None:
        """`burst_bytes`: what may come at once, which a long head has to fit into."""
        self._burst_bytes = burst_bytes
        self._left = float(burst_bytes)
        self._at_s = now_s

    def widen(self, burst_bytes: int) -> None:
        """Let more come at once from now on."""
        self._left += burst_bytes - self._burst_bytes
        self._burst_bytes = burst_bytes

    def received(self, total_bytes: int, payload_bytes: int, resets: int, now_s: float) -> bool:
        """Account for what came in; False when the allowance is used up."""
        refilled = (now_s - self._at_s) * REFILL_BYTES_PER_S
        self._at_s = now_s
        overhead = total_bytes - 2 * payload_bytes + resets * RESET_BYTES
        self._left = min(min(self._left + refilled, self._burst_bytes) - overhead, self._burst_bytes)
        return self._left >= 0

    def sent(self, payload_bytes: int) -> None:
        """Account for a DATA frame that went out."""
        self._left += EARNED_PER_FRAME_BYTES + payload_bytes / EARNED_SHARE
