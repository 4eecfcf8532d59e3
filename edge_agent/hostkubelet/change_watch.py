"""Wakes up a reader as soon as an open file is written to, emptied, renamed or removed."""

from __future__ import annotations

from tunnel.aio.process.inotify import ATTRIB, MODIFY, MOVE_SELF, Inotify

_EVENTS = MODIFY | ATTRIB | MOVE_SELF
"""The events to wake up for: the file is written to or emptied, a link to it is removed, or it is renamed."""


class ChangeWatch:
    """A watch over one file at a time. It only wakes the reader, who must look at the file to see what has changed."""

    def __init__(self) -> None:
        """Prepares a watch over no file yet; needs the running loop."""
        self._inotify = Inotify()
        self._watched = -1

    def add(self, fd: int) -> None:
        """Watches an open file in place of the one before; may block as long as its file system does."""
        self._inotify.remove(self._watched)
        # By its descriptor: the name may be another file's by now.
        self._watched = self._inotify.add(b"/proc/self/fd/%d" % fd, _EVENTS)

    async def changed(self, within_s: float) -> None:
        """Waits until something happened since the last call, `within_s` seconds at most."""
        await self._inotify.changed(within_s)

    def close(self) -> None:
        """Stops watching; `add` must not be called after it."""
        self._inotify.close()
