"""Follows a log file as an operator expects: from its last lines, across rotation by rename and by truncation.

All of it blocks and runs in the file's own thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.hostkubelet.change_watch import ChangeWatch
from edge_agent.hostkubelet.line_times import LineTimes, is_hole
from edge_agent.hostkubelet.log_file import FileFault, LogFile

READ_BYTES = 64 * 1024
MARK_BYTES = 64
"""How many of the bytes that were read last are compared to notice that a file was emptied and has grown past its old
size."""
MAX_SIBLINGS = 1000
"""The most names of a folder that are looked at for the copy of a file that was emptied."""


class FollowedFile:
    """An open log file at a position.

    Attributes:
        times: the reader of times of lines, as far as lines say them; known from `open` on.
        first_time: the time of what is read first, where that says none itself.
    """

    def __init__(self, file: LogFile, watch: ChangeWatch | None = None) -> None:
        """Prepares the reading; nothing is opened before `open`.

        Args:
            file: the log file.
            watch: is told which open file to watch; None: nobody waits for changes.
        """
        self.times = LineTimes(datetime.now(UTC))
        self.first_time = self.times.near
        self._file = file
        self._watch = watch
        self._fd = -1
        self._offset = 0
        self._mark = b""
        self._emptied = -1
        """The descriptor of the file itself, while its copy is read to the end; -1: there is no copy to read."""
        self._changed_ns = 0
        """The file's ctime at the last look, in nanoseconds."""

    def open(self, tail_lines: int | None = None, since: datetime | None = None) -> int:
        """Opens the file at its last `tail_lines` lines, and not before `since`, as far as times of lines are known.

        Args:
            tail_lines: how many lines; None means all.
            since: the time of the first line; None means any.

        Returns:
            How many bytes there are from here on.

        Raises:
            FileFault: it cannot be opened.
        """
        self._fd = self._file.open()
        self._watch_it()
        found = os.fstat(self._fd)
        size = found.st_size
        self.times = LineTimes.of_file(self._fd, size, datetime.fromtimestamp(found.st_mtime, UTC))
        self._offset = 0 if tail_lines is None else tail_offset(self._fd, size, tail_lines)
        if since is not None:
            self._offset = max(self._offset, self.times.offset_since(self._fd, size, since))
        self.first_time = self.times.first_time(self._fd, self._offset, size) or self.times.near
        self._mark = os.pread(self._fd, min(MARK_BYTES, self._offset), self._offset - min(MARK_BYTES, self._offset))
        self._changed_ns = found.st_ctime_ns
        return size - self._offset

    def read(self, max_bytes: int = READ_BYTES) -> bytes:
        """Returns what follows, `b""` when nothing is there yet; goes on in the new file when the log was rotated."""
        if self._fd < 0:
            return b""
        # Writers keep the old file until they reopen theirs: it is left when the new one has got its first bytes.
        if data := self._read_on(max_bytes):
            return data
        if not self._has_successor():
            return b""
        return self._read_on(max_bytes) or self._read_successor(max_bytes)

    def close(self) -> None:
        """Closes the file; idempotent."""
        for fd in (self._fd, self._emptied):
            if fd >= 0:
                os.close(fd)
        self._fd = self._emptied = -1

    # Internal

    def _read_on(self, max_bytes: int) -> bytes:
        if self._emptied >= 0:
            if data := self._read_at(max_bytes):
                return data
            os.close(self._fd)
            self._fd, self._emptied = self._emptied, -1
            self._offset, self._mark = 0, b""
        found = os.fstat(self._fd)
        size, changed_ns, self._changed_ns = found.st_size, self._changed_ns, found.st_ctime_ns
        if size == self._offset:
            return b""
        if size < self._offset or not _is_behind(self._fd, self._offset, self._mark):
            # Emptied in place. Who rotates like that has made a copy before, with what we have not seen yet.
            copy = self._find_copy(changed_ns)
            if copy >= 0:
                self._emptied, self._fd = self._fd, copy
                return self._read_on(max_bytes)
            self._offset, self._mark = 0, b""
        return self._read_at(max_bytes)

    def _read_at(self, max_bytes: int) -> bytes:
        data = os.pread(self._fd, max_bytes, self._offset)
        self._offset += len(data)
        self._mark = (self._mark + data)[-MARK_BYTES:]
        return data

    def _find_copy(self, changed_ns: int) -> int:
        """Returns the copy that was made of the file before it was emptied, open; -1 where none is to be found.

        It has the name of the file with something behind it, as logrotate's copytruncate makes it, is of the same owner
        and not older than what was read last, and has those very bytes in the same place.
        """
        if not self._mark:
            return -1
        mine = os.fstat(self._fd)
        folder = Path(f"/proc/self/fd/{self._fd}").readlink().parent
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_SIBLINGS), entries, strict=False):
                if not entry.name.startswith(self._file.path.name) or entry.name == self._file.path.name:
                    continue
                found = entry.stat(follow_symlinks=False)
                is_new = found.st_ctime_ns >= changed_ns
                if not (stat.S_ISREG(found.st_mode) and is_new and found.st_size > self._offset):
                    continue
                fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                same_owner = os.fstat(fd).st_uid == mine.st_uid
                if same_owner and not os.path.samestat(found, mine) and _is_behind(fd, self._offset, self._mark):
                    return fd
                os.close(fd)
        return -1

    def _has_successor(self) -> bool:
        mine = os.fstat(self._fd)
        device, inode, size = self._file.identity()
        return size > 0 and (device, inode) != (mine.st_dev, mine.st_ino)

    def _read_successor(self, max_bytes: int) -> bytes:
        try:
            successor = self._file.open()
        except FileFault:
            return b""
        self.close()
        self._fd, self._offset, self._mark = successor, 0, b""
        self._watch_it()
        return self._read_on(max_bytes)

    def _watch_it(self) -> None:
        if self._watch is not None:
            self._watch.add(self._fd)


def _is_behind(fd: int, offset: int, mark: bytes) -> bool:
    """Returns whether these bytes are the ones right before the offset."""
    return os.pread(fd, len(mark), offset - len(mark)) == mark


def tail_offset(fd: int, size: int, lines: int) -> int:
    """Returns where the last `lines` lines of a file begin; reads blocks from its end and no more than needed.

    They begin behind a hole at the earliest.
    """
    if lines == 0 or size == 0:
        return size
    # The line feed at the very end ends the last line and begins none.
    wanted = lines + (os.pread(fd, 1, size - 1) == b"\n")
    position, block = size, b""
    while position > 0:
        start = max(0, position - READ_BYTES)
        before, block = block, os.pread(fd, position - start, start)
        if is_hole(block):
            return position + len(before) - len(before.lstrip(b"\0"))
        found = block.count(b"\n")
        if found >= wanted:
            end = len(block)
            for _ in range(wanted):
                end = block.rindex(b"\n", 0, end)
            return start + end + 1
        wanted -= found
        position = start
    return 0
