"""Token buckets: how often something may be done, with a burst."""

from __future__ import annotations

import math
from typing import NamedTuple


class Rate(NamedTuple):
    """How often something may be done."""

    per_s: float
    """How many times a second for long."""
    at_once: int
    """How many times at once after a rest."""


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
    def left(self) -> float:
        """How many tokens there were when it was last asked; below 0 for such as are still to come."""
        return self._tokens

    @property
    def burst(self) -> float:
        """How many tokens it holds when it is full."""
        return self._burst

    @property
    def full_s(self) -> float:
        """The seconds that it takes to fill when it is empty."""
        return self._burst / self._rate

    @property
    def wait_s(self) -> float:
        """The seconds from then until it has a token; 0.0 when it had one left."""
        return max(0.0, 1.0 - self._tokens) / self._rate

    def spent(self, now: float) -> int:
        """Returns how many tokens are missing at `now` until it is full, and uses none."""
        return math.ceil(self._burst - min(self._burst, self._tokens + (now - self._at_s) * self._rate))

    def wait_from(self, now: float) -> float:
        """Returns the seconds from `now` until it has a token, and uses none; 0.0 when it has one."""
        return max(0.0, self.wait_s - (now - self._at_s))

    def change(self, rate_per_s: float, burst: int) -> None:
        """Allows another rate and burst from now on. What was used counts on."""
        self._tokens += burst - self._burst
        self._rate, self._burst = rate_per_s, float(burst)

    def take(self, now: float) -> bool:
        """Uses one token; returns False when there is none."""
        return self.reserve(now, 0.0) == 0.0

    def reserve(self, now: float, within_s: float) -> float | None:
        """Uses one token, which may be one that is still to come, and returns in how many seconds it is there.

        Returns None, and uses none, where that would be later than `within_s`.
        """
        self._fill(now)
        wait_s = self.wait_s
        if wait_s > within_s:
            return None
        self._tokens -= 1.0
        return wait_s

    def spend(self, count: float, now: float) -> float:
        """Uses tokens, also such as are still to come. Returns the seconds until all of them are there; 0.0 for now."""
        self._fill(now)
        self._tokens -= count
        return max(0.0, -self._tokens) / self._rate

    def earn(self, count: float) -> None:
        """Adds tokens, as far as the burst has room for them."""
        self._tokens = min(self._burst, self._tokens + count)

    # Internal

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._at_s) * self._rate)
        self._at_s = now


MAX_BUCKETS = 16 * 1024
"""The most buckets that one set keeps, at 250 bytes each: enough for each of 10,000 boxes. Beyond it the one that was
asked longest ago is forgotten.
"""


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

    @property
    def burst(self) -> int:
        """Returns how many tokens each has after a rest."""
        return self._burst

    @property
    def every_s(self) -> float:
        """The seconds in which each gets one token more."""
        return 1.0 / self._rate

    def take(self, who: str, now: float, more: int = 0) -> float:
        """Uses one token of theirs and returns 0.0; where there is none, returns in how many seconds there is one.

        `more` is by how much the burst of a new bucket is larger than the others'.
        """
        bucket = self._bucket(who, now, more)
        return 0.0 if bucket.take(now) else bucket.wait_s

    def reserve(self, who: str, now: float, within_s: float) -> float | None:
        """Uses one token of theirs, which may be one that is still to come; see `TokenBucket.reserve`."""
        return self._bucket(who, now, 0).reserve(now, within_s)

    def spend(self, who: str, now: float) -> float:
        """Uses one token of theirs, and returns in how many seconds it is there; 0.0 for now."""
        return self._bucket(who, now, 0).spend(1.0, now)

    def change(self, rate_per_s: float, burst: int) -> None:
        """Allows everybody another rate and burst from now on. What they used counts on."""
        more = burst - self._burst
        for bucket in self._buckets.values():
            bucket.change(rate_per_s, int(bucket.burst) + more)
        self._rate, self._burst = rate_per_s, burst

    def wait_s(self, who: str, now: float) -> float:
        """Returns in how many seconds there is a token of theirs, and uses none; 0.0 when there is one."""
        bucket = self._buckets.get(who)
        return 0.0 if bucket is None else bucket.wait_from(now)

    def most_spent(self, now: float) -> int:
        """Returns how much of the burst is spent by whoever has spent most of theirs; what a larger burst of some has
        more is left out.
        """
        return max((one.spent(now) - int(one.burst) + self._burst for one in self._buckets.values()), default=0)

    def at_rest(self, now: float) -> bool:
        """Returns whether everybody's bucket is full."""
        self._forget(now)
        return not self._buckets

    def forget(self, who: str) -> None:
        """Gives them all tokens back."""
        self._buckets.pop(who, None)

    # Internal

    def _bucket(self, who: str, now: float, more: int) -> TokenBucket:
        self._forget(now)
        bucket = self._buckets.pop(who, None)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            bucket = TokenBucket(self._rate, self._burst + more, now)
        self._buckets[who] = bucket
        return bucket

    def _forget(self, now: float) -> None:
        while self._buckets:
            who = next(iter(self._buckets))
            bucket = self._buckets[who]
            if now - bucket.used_s < bucket.full_s:
                return
            del self._buckets[who]
