"""Waking up as soon as an open file is written to, emptied, renamed or removed: inotify(7).

It only wakes: what has changed is for who reads the file to see. Where there is no inotify (a limit of the box, a file
system of another machine's) `changed` just waits, which makes it a poll.

The two packages for it that are kept up (asyncinotify, inotify_simple) start a process at their import to find the C
library, which a process with gRPC in it had better not; and of inotify three calls are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os

_MODIFY, _ATTRIB, _MOVE_SELF = 0x002, 0x004, 0x800
"""Written to or emptied; a link to it was removed; it was renamed (linux/inotify.h)."""
_EVENTS = _MODIFY | _ATTRIB | _MOVE_SELF
_READ_BYTES = 4096
"""Some 250 events; what stays is read the next time."""


class ChangeWatch:
    """A watch over one file at a time."""

    def __init__(self) -> None:
        """Needs the running loop."""
        self._libc = ctypes.CDLL(None)
        # -1: a user has 128 of them by default, and other programs need some too.
        self._fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._watched = -1
        self._woken = asyncio.Event()
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._wake)

    def add(self, fd: int) -> None:
        """Watch this open file in place of the one before; may block as long as its file system does."""
        if self._fd < 0:
            return
        if self._watched >= 0:
            self._libc.inotify_rm_watch(self._fd, self._watched)
        # By its descriptor: the name may be another file's by now.
        self._watched = int(self._libc.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % fd, _EVENTS))

    async def changed(self, within_s: float) -> None:
        """Return when something happened since the last call, and at the latest after `within_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._woken.wait()
        self._woken.clear()

    def close(self) -> None:
        """Watch no more; no `add` may come after it."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    # Internal

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _READ_BYTES)
        self._woken.set()
