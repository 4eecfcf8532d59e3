"""Decides whether the peer is alive.

Silence is asked about with a PING, and the peer is given up at a deadline of its own (PROTO 7.3).
"""

from __future__ import annotations

from enum import Enum, auto

from tunnel.core.wire.limits import Timing

FROZEN_S = 2.0
"""A timer so many seconds late means that this process itself stood still; the peer gets another chance to be heard."""


class Verdict(Enum):
    """What is to be done about a peer's silence."""

    WELL = auto()
    ASK = auto()
    """The peer must be asked with a PING now."""
    DEAD = auto()


class Liveness:
    """Watches one carrier for signs of life. Any message that comes in is one."""

    __slots__ = ("_give_up_s", "_late_s", "_patience_s", "heard_s")

    def __init__(self, timing: Timing, now: float, *, ask_late: bool) -> None:
        """With `ask_late` this side leaves the first question to the other: an idle link carries one PING, not two."""
        self._patience_s = timing.dead_after_s - timing.suspect_after_s
        self._late_s = 0.0
        if ask_late:
            self._late_s = self._patience_s / 4
            self._patience_s -= self._late_s
        self.heard_s = now
        self._give_up_s: float | None = None

    @property
    def suspect(self) -> bool:
        """Returns whether the peer was asked for a sign of life and has not been heard since."""
        return self._give_up_s is not None

    def due_s(self, silence_s: float) -> float:
        """Returns when `check` is due, if a silence of `silence_s` needs no question."""
        return self.heard_s + silence_s + self._late_s if self._give_up_s is None else self._give_up_s

    def heard(self, now: float) -> None:
        """Notes that a message came in."""
        self.heard_s = now
        self._give_up_s = None

    def check(self, now: float, silence_s: float) -> Verdict:
        """Returns what is to be done about the silence.

        It is called when `due_s` is reached; an early call is harmless.
        """
        if now < self.due_s(silence_s):
            return Verdict.WELL
        if self._give_up_s is not None and now - self._give_up_s <= FROZEN_S:
            return Verdict.DEAD
        self._give_up_s = now + self._patience_s
        return Verdict.ASK
