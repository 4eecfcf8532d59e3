"""Keeps the temporary names of files that are being copied here: none outlives the command, however it ends.

Copies run in threads that nobody waits for when one fails, so that whoever gives up must take away what they leave.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from tunnel.core.wire.faults import COPY_FAILED, FaultError


class CopyStopped(FaultError):
    """Another part of the same copy failed, or the person gave it up."""

    default_fault = COPY_FAILED


class HalfFiles:
    """The temporary files of one command; its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: set[Path] = set()
        self._given_up = False

    def begin(self, path: Path) -> int:
        """Makes a file and returns its descriptor, for writing. Only its owner may read it until it is whole.

        Raises:
            CopyStopped: no more are wanted.
            OSError: it cannot be made, or is there already; never through a link.
        """
        with self._lock:
            if self._given_up:
                raise CopyStopped
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            self._paths.add(path)
            return descriptor

    def end(self, path: Path) -> None:
        """Takes a file away, unless it got its final name."""
        with self._lock:
            self._paths.discard(path)
            with contextlib.suppress(OSError):
                path.unlink()

    def give_up(self) -> None:
        """Takes away all that there are, and lets no more begin."""
        with self._lock:
            self._given_up = True
            for path in self._paths:
                with contextlib.suppress(OSError):  # Windows keeps one that is open; its thread takes it away then
                    path.unlink()
