"""Is the peer alive: silence is asked about with a PING, and given up on at a deadline of its own (PROTO 7.3)."""

from __future__ import annotations

from enum import Enum, auto

from tunnel.core.limits import Timing

FROZEN_S = 2.0
"""A timer that fires so late means that this process itself stood still; the peer gets another chance to be heard."""


class Verdict(Enum):
    """What silence has come to."""

    WELL = auto()
    ASK = auto()
    """Send a PING now."""
    DEAD = auto()


class Liveness:
    """Watches one carrier. Any inbound message is life."""

    def __init__(self, timing: Timing, now: float, *, ask_late: bool) -> None:
        """`ask_late`: this side leaves the first question to the other, so that an idle link carries one PING, not
        two.
        """
        self._timing = timing
        self._ask_after_s = timing.suspect_after_s
        if ask_late:
            self._ask_after_s += (timing.dead_after_s - timing.suspect_after_s) / 4
        self._heard_s = now
        self.suspect = False

    @property
    def due_s(self) -> float:
        """When `check` is due."""
        return self._heard_s + (self._timing.dead_after_s if self.suspect else self._ask_after_s)

    def heard(self, now: float) -> None:
        """A message came in."""
        self._heard_s = now
        self.suspect = False

    def check(self, now: float) -> Verdict:
        """Called when `due_s` is reached."""
        if now < self.due_s:
            return Verdict.WELL
        if now - self.due_s > FROZEN_S:
            self._heard_s = now - self._ask_after_s
            self.suspect = True
            return Verdict.ASK
        if self.suspect:
            return Verdict.DEAD
        self.suspect = True
        return Verdict.ASK
