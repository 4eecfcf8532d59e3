"""The clock of sessions: one clock for a core and all that drives it, given to whoever makes them.

The event loop has a clock too, by which its timers and `asyncio.timeout` go. It stands still within a turn and moves by
a millisecond under uvloop, which is too coarse to tell a queue from an empty path. So the two are never compared: what
goes from one to the other is a duration.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns the seconds since some moment of its own; never less than before."""

MONOTONIC: Clock = time.monotonic
"""The clock that the daemons use. It does not move while the machine sleeps."""
