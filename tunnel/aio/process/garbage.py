"""Settings of Python's garbage collector for a daemon; call `settle()` once, when all is loaded and set up.

Objects in cycles are few here, while each connection makes hundreds that are not: with the collector's defaults the
youngest generation was searched every second connection, the oldest with all modules in it every few hundred.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""How many more container objects must be made than freed before the youngest are searched; some 2 MB of them."""


def settle() -> None:
    """Leaves everything that is there by now out of every search, since it stays for good, and searches less often."""
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, middle, old)
