"""Makes sure that descriptors 0, 1 and 2 are open: every program takes for granted that they are, and what they are."""

from __future__ import annotations

import contextlib
import os


def open_missing_descriptors() -> None:
    """Opens /dev/null as each of 0, 1 and 2 that the process was started without.

    Else the next file or socket gets the number, and what is printed goes into it: gRPC's core writes its own log to 2,
    which would be the connection of some box, and a child's standard input would be our unix socket. It must be called
    before anything is opened. Python's `sys.stdout` and `sys.stderr` stay None then, and print nothing.
    """
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this very one
