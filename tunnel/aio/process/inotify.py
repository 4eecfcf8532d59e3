"""Wakes up as soon as something happens to files and folders, by inotify(7).

What has happened is for others to find out.

Where there is no inotify (a limit of the machine, a file system of another machine's) `changed` just waits, which makes
it a poll.

The two packages for it that are kept up (asyncinotify, inotify_simple) start a process at their import to find the C
library, which a process with gRPC in it had better not; and of inotify three calls are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, MOVE_SELF = (
    0x002, 0x004, 0x008, 0x040, 0x080, 0x100, 0x200, 0x800,
)  # fmt: skip
"""The events that can happen (linux/inotify.h)."""
_READ_BYTES = 4096
"""How much is read at a time: some 250 events; what stays is read the next time."""


class Inotify:
    """The watches of one owner, who is woken by all of them alike."""

    def __init__(self) -> None:
        """Watches nothing yet. It needs the running loop."""
        self._libc = ctypes.CDLL(None)
        # -1: a user has 128 of them by default, and other programs need some too.
        self._fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._woken = asyncio.Event()
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._wake)

    def add(self, path: bytes, events: int) -> int:
        """Watches what is at a path now; this may block as long as its file system does.

        Returns:
            A number for `remove`; -1 where it is not watched.
        """
        return -1 if self._fd < 0 else int(self._libc.inotify_add_watch(self._fd, path, events))

    def remove(self, watch: int) -> None:
        """Ends a watch, by the number that `add` returned."""
        if self._fd >= 0 and watch >= 0:
            self._libc.inotify_rm_watch(self._fd, watch)

    async def changed(self, within_s: float) -> None:
        """Waits until something has happened since the last call, but no longer than `within_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._woken.wait()
        self._woken.clear()

    def close(self) -> None:
        """Ends all watches; what is added afterwards is not watched."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    # Internal

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _READ_BYTES)
        self._woken.set()
