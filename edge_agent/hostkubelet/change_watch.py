"""Waking up as soon as an open file is written to, emptied, renamed or removed."""

from __future__ import annotations

from tunnel.aio.process.inotify import ATTRIB, MODIFY, MOVE_SELF, Inotify

_EVENTS = MODIFY | ATTRIB | MOVE_SELF
"""Written to or emptied; a link to it was removed; it was renamed."""


class ChangeWatch:
    """A watch over one file at a time. It only wakes: what has changed is for who reads the file to see."""

    def __init__(self) -> None:
        """Needs the running loop."""
        self._inotify = Inotify()
        self._watched = -1

    def add(self, fd: int) -> None:
        """Watch this open file in place of the one before; may block as long as its file system does."""
        self._inotify.remove(self._watched)
        # By its descriptor: the name may be another file's by now.
        self._watched = self._inotify.add(b"/proc/self/fd/%d" % fd, _EVENTS)

    async def changed(self, within_s: float) -> None:
        """Return when something happened since the last call, and at the latest after `within_s`."""
        await self._inotify.changed(within_s)

    def close(self) -> None:
        """Watch no more; no `add` may come after it."""
        self._inotify.close()
