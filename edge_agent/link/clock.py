"""Notices when the box's clock is not the server's: certificates would seem to have run out, or not begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from tunnel.aio.identity.clock import clock_fault
from tunnel.core.wire.faults import CLOCK_WRONG

TELL_EVERY_S = 86400.0

_log = structlog.get_logger("edge.clock")


class ClockWatch:
    """Judges each look at the server's clock, and logs when the box's own is wrong."""

    def __init__(self, on_fault: Callable[[str], None] = lambda _fault: None) -> None:
        """Prepares the watch; `on_fault` is told at each look what is wrong with the clock, or "" when nothing is."""
        self._on_fault = on_fault
        self._told_s: float | None = None
        self.ahead: timedelta | None = None
        """The time by which the box's clock was ahead of the server's at the last look; None before the first."""

    def look(self, ahead: timedelta) -> None:
        """Takes note that the box's clock is `ahead` of the server's by so much; negative means behind it."""
        self.ahead = ahead
        fault, now_s = clock_fault(ahead), asyncio.get_running_loop().time()
        self._on_fault(fault or "")
        if fault is None:
            if self._told_s is not None:
                _log.info("the clock is right again")
            self._told_s = None
        elif self._told_s is None or now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            _log.warning("the clock is wrong", code=CLOCK_WRONG.code, reason=fault)
