"""A token bucket: how often something may be done, with a burst."""

from __future__ import annotations


class TokenBucket:
    """Allows `rate_per_s` for long and `burst` at once."""

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate_per_s: float, burst: int, now: float) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at_s = now

    def take(self, now: float) -> bool:
        """Uses one token; returns False when there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._rate)
        self._at_s = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
