"""Waits until other files lie behind some paths: written anew, renamed over, or another end of a symbolic link.

Kubernetes mounts a ConfigMap as links through a link (`file -> ..data/file`, `..data -> ..2026_11_29`) and swaps the
middle one. So it is the folders of every link on the way that are watched, not only the file's own.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.files import Stamp, stamp
from tunnel.aio.process.inotify import ATTRIB, CLOSE_WRITE, CREATE, DELETE, MOVED_FROM, MOVED_TO, Inotify

POLL_S = 15.0
"""Seconds between looks at the files where nothing tells of a change: a network file system, a machine without inotify
to spare. A stat of each file now and then is nothing.
"""
SETTLE_S = 0.2
"""Seconds that the files must stay as they are before they count as changed: an editor that empties a file and then
writes it, and a certificate whose key follows in a second rename, are one change.
"""
MAX_SETTLE_LOOKS = 50
"""How many looks the files get to settle, ten seconds: a file that is written all the time is told as it is then."""
MAX_LINKS = 40
"""How many links are followed on the way to a file; the kernel gives up at as many."""
_EVENTS = CLOSE_WRITE | ATTRIB | CREATE | DELETE | MOVED_FROM | MOVED_TO

_calls = BlockingCalls("file watch", threads=2)
"""Threads of their own, since the operator chooses where files are: a file system that is gone must hold
nothing else.
"""


class FileWatch:
    """Tells of changes to files since it was started, or since it last told of one."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        """`files` is asked at each look, since which files there are may change too. It needs the running loop."""
        self._files = files
        self._inotify = Inotify()
        self._watched: dict[Path, int] = {}
        self._seen: Stamp | None = None

    async def start(self) -> None:
        """Takes what is there now as known. If it was not called, the first call of `changed` does that."""
        self._seen = await self._look()

    async def changed(self) -> None:
        """Waits until the files have changed, and stayed as they are for a moment."""
        if self._seen is None:
            await self.start()
        while (now := await self._look()) == self._seen:
            await self._inotify.changed(POLL_S)
        for _ in range(MAX_SETTLE_LOOKS):
            await asyncio.sleep(SETTLE_S)
            before, now = now, await self._look()
            if now == before:
                break
        self._seen = now

    def close(self) -> None:
        """Stops watching."""
        self._inotify.close()

    async def _look(self) -> Stamp | None:
        """Looks at the files and returns what changes with them; what was there before, if a file system does not
        answer.
        """
        files = list(self._files())
        try:
            return await _calls.run(lambda: self._watch_and_stamp(files))
        except NotAnswering:
            return self._seen

    def _watch_and_stamp(self, files: list[Path]) -> Stamp:
        # First watched, then looked at: what happens in between wakes us, at worst for nothing.
        folders = {folder for file in files for folder in folders_of(file)}
        for gone in self._watched.keys() - folders:
            self._inotify.remove(self._watched.pop(gone))
        for folder in folders:
            # Again each time: it gives the same number, unless the folder is another one by now.
            self._watched[folder] = self._inotify.add(os.fsencode(folder), _EVENTS)
        return stamp(files)


def folders_of(file: Path) -> set[Path]:
    """Returns the folders in which a change may make a path lead to another file. Blocking."""
    found: set[Path] = set()
    at, ahead, links = Path("/"), deque(file.absolute().parts[1:]), 0
    while ahead:
        name = ahead.popleft()
        if name == "..":
            at = at.parent
            continue
        found_here = at / name
        try:
            target = found_here.readlink() if links < MAX_LINKS else None
        except OSError:  # no link, or nothing at all
            target = None
        if target is None:
            if not ahead:
                found.add(at)
            at = found_here
            continue
        links += 1
        found.add(at)
        at = Path("/") if target.is_absolute() else at
        ahead.extendleft(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return found
