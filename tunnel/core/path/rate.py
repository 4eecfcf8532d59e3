"""Token buckets: how often something may be done, with a burst."""

from __future__ import annotations


class TokenBucket:
    """Allows `rate_per_s` for long and `burst` at once."""

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate_per_s: float, burst: int, now: float) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at_s = now

    @property
    def used_s(self) -> float:
        """The time at which it was last asked."""
        return self._at_s

    @property
    def full_s(self) -> float:
        """The seconds that it takes to fill when it is empty."""
        return self._burst / self._rate

    @property
    def wait_s(self) -> float:
        """The seconds from then until it has a token; 0.0 when it had one left."""
        return max(0.0, 1.0 - self._tokens) / self._rate

    def wait_from(self, now: float) -> float:
        """Returns the seconds from `now` until it has a token, and uses none; 0.0 when it has one."""
        return max(0.0, self.wait_s - (now - self._at_s))

    def take(self, now: float) -> bool:
        """Uses one token; returns False when there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._rate)
        self._at_s = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class TokenBuckets:
    """A bucket for each of many who ask. One that nobody asked until it was full again is forgotten."""

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._buckets: dict[str, TokenBucket] = {}
        """The one that was asked last stands last."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, who: str, now: float, more: int = 0) -> float:
        """Uses one token of theirs and returns 0.0; where there is none, returns in how many seconds there is one.

        `more` is by how much the burst of a new bucket is larger than the others'.
        """
        self._forget(now)
        bucket = self._buckets.pop(who, None) or TokenBucket(self._rate, self._burst + more, now)
        self._buckets[who] = bucket
        return 0.0 if bucket.take(now) else bucket.wait_s

    def wait_s(self, who: str, now: float) -> float:
        """Returns in how many seconds there is a token of theirs, and uses none; 0.0 when there is one."""
        bucket = self._buckets.get(who)
        return 0.0 if bucket is None else bucket.wait_from(now)

    def at_rest(self, now: float) -> bool:
        """Returns whether everybody's bucket is full."""
        self._forget(now)
        return not self._buckets

    def forget(self, who: str) -> None:
        """Gives them all tokens back."""
        self._buckets.pop(who, None)

    # Internal

    def _forget(self, now: float) -> None:
        while self._buckets:
            who = next(iter(self._buckets))
            bucket = self._buckets[who]
            if now - bucket.used_s < bucket.full_s:
                return
            del self._buckets[who]
