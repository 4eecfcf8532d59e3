"""The file that says which process has a state folder.

It is locked as long as there is one, so that there is only one.

The lock (flock(2)) belongs to the open file, not to the process: a process that takes over gets the descriptor, and the
folder is never free in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from tunnel.core.wire.faults import STATE_HAS_A_SERVER, FaultError

MODE = 0o644
TRIES = 5
TRY_S = 0.05
"""Seconds between two tries: whoever asks `running` holds a lock for an instant."""


class AlreadyRunning(FaultError):
    """Another process has the folder; the text names it."""

    default_fault = STATE_HAS_A_SERVER


class PidFile:
    """The lock that this process holds, until it ends."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is that of the file, which is locked already."""
        self.descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> PidFile:
        """Makes the file, locks it and returns the lock. Blocking.

        Raises:
            AlreadyRunning: another process has it.
            OSError: it cannot be made.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        for _ in range(TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(TRY_S)
            except OSError:
                os.close(descriptor)
                raise
            else:
                return cls(descriptor)
        pid = _read(descriptor)
        os.close(descriptor)
        who = f"process {pid}" if pid else "another process"
        raise AlreadyRunning(f"{who} runs with {path.parent} already: stop it, or upgrade it in place")

    def write(self) -> None:
        """Writes the id of this process into the file.

        Raises:
            OSError: the disk is full, or the like.
        """
        os.pwrite(self.descriptor, f"{os.getpid():<20}\n".encode(), 0)  # of one length: nobody reads half of it


def running(path: Path) -> int | None:
    """Returns the id of the process that has the folder of this file; None when none has.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        return _read(descriptor)
    finally:
        os.close(descriptor)


# Internal


def _read(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
