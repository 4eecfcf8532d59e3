"""When to dial again: exponential back-off with full jitter, and when to believe that a link is well again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

QUICK_RETRIES = 64
"""How many links lost soon after they came up are dialled again at once; a bad hour of a mobile link has fewer."""


@dataclass(slots=True, kw_only=True)
class Backoff:
    """The delays between attempts to dial.

    The first try after a loss comes at once but for a small jitter, so that a server's restart is not met by all
    agents in one instant; then full jitter over an exponential range ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015).
    """

    random: Callable[[], float]
    """Returns a number that is uniform in [0, 1)."""
    first_s: float = 0.2
    base_s: float = 0.5
    early_cap_s: float = 3.0
    """The longest delay of the first attempts: all agents are back 3 s after a server that restarts listens again."""
    early_attempts: int = 20
    """How many attempts the early ceiling holds for: on average half a minute of trying."""
    cap_s: float = 30.0
    stable_s: float = 30.0
    """A link that held so long counts as well. One lost sooner is dialled again at once too, but not for ever: a server
    that accepts and drops must not be dialled in a tight loop.
    """
    attempts: int = 0
    quick_left: int = QUICK_RETRIES

    def next_delay(self, advised_s: float = 0.0) -> float:
        """Counts an attempt and returns the seconds to wait before it.

        That is never less than `advised_s`, what the server advised, which is spread over half more; 0.0 is no advice.
        """
        self.attempts += 1
        if self.attempts == 1:
            delay = self.first_s * self.random()
        else:
            delay = self._ceiling() * self.random()
        if advised_s > 0.0:
            delay = max(delay, advised_s * (1.0 + 0.5 * self.random()))
        return delay

    def _ceiling(self) -> float:
        late = self.attempts - self.early_attempts
        if late <= 0:
            return min(self.early_cap_s, self.base_s * 2.0 ** min(self.attempts - 2, 16))
        return min(self.cap_s, self.early_cap_s * 2.0 ** min(late, 16))

    def connected_for(self, duration_s: float) -> None:
        """Takes how long the last link held after its handshake, in seconds.

        The next dial comes at once, unless too many links in a row were lost soon.
        """
        if duration_s >= self.stable_s:
            self.quick_left = QUICK_RETRIES
        if self.quick_left > 0:
            self.quick_left -= 1
            self.attempts = 0
