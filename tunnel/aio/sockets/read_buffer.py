"""The buffer that every connection of a process reads into: a read and its handling are one step of the event loop.

Whoever reads copies out, before the step ends, what is to stay.
"""

from __future__ import annotations

import mmap
from typing import Final

READ_BYTES: Final = 256 * 1024
"""The most bytes of one read of a socket: a little more than four of a stream's frames."""

# Mapped, so that pages which no read ever reached take no memory: those of an idle daemon, and of one with short reads.
READ_BUFFER: Final = memoryview(mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE))
