"""The one timer of a session. It is set for when its core must be called, and set anew as seldom as that allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunnel.aio.process.clock import Clock
from tunnel.core.session import Session

REARM_S = 1.0
"""How many seconds too early the loop's timer may fire before it is set anew. Each packet puts the next question off,
and each change costs; but a link that speaks once in a minute should not be woken in between.
"""


class CoreTimer:
    """Calls back when the core's `next_timer` is due. `arm` must be called whenever that may have come forward."""

    __slots__ = ("_core", "_handle", "_handle_s", "_now", "_on_due")

    def __init__(self, core: Session, now: Clock, on_due: Callable[[], None]) -> None:
        """`on_due` must call the core's `on_timer`, and arm this again."""
        self._core = core
        self._now = now
        self._on_due = on_due
        self._handle: asyncio.TimerHandle | None = None
        self._handle_s = 0.0

    def arm(self) -> None:
        """Sets the timer after the core was used: its next call may be due at another time."""
        due = self._core.next_timer()
        if self._handle is not None:
            if due is not None and self._handle_s <= due < self._handle_s + REARM_S:
                return
            self.cancel()
        if due is not None:
            self._handle_s = due
            self._handle = asyncio.get_running_loop().call_later(max(0.0, due - self._now()), self._fire)

    def cancel(self) -> None:
        """Stops the timer: nothing is due any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        due = self._core.next_timer()
        if due is not None and due > self._now():
            self.arm()  # it was put off since; that is not told to the loop each time
        else:
            self._on_due()
