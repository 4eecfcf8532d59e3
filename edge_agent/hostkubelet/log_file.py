"""Following a log file as an operator expects: from its last lines, across rotation by rename and by truncation.

All of it blocks and runs in threads. Files are opened here and nowhere else, and only those that the box's own
configuration names: a name that meanwhile leads elsewhere is refused, so that who may write next to a log cannot make
the agent read another file.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from edge_agent.hostkubelet.status import KubeletError

READ_BYTES = 64 * 1024
MARK_BYTES = 64
"""How much of what was read last is compared to notice that a file was emptied and has grown past its old size."""


class LogFile:
    """A configured file.

    Attributes:
        path: as configured.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = path.resolve()  # now, once: see above

    def exists(self) -> bool:
        """There is something to read."""
        try:
            os.close(self.open())
        except KubeletError:
            return False
        return True

    def open(self) -> int:
        """Open it for reading.

        Raises:
            KubeletError: it is absent, not readable, no regular file, or not the one that was configured.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK  # the last one: for a FIFO
        try:
            fd = os.open(self._real, flags)
        except FileNotFoundError:
            raise KubeletError(404, f"the log file {self.path} does not exist") from None
        except OSError as error:
            raise KubeletError(403, f"the log file {self.path} cannot be read: {error.strerror}") from error
        if stat.S_ISREG(os.fstat(fd).st_mode) and self._is_configured(fd):
            return fd
        os.close(fd)
        raise KubeletError(403, f"{self.path} is not the regular file any more that it was when the agent started")

    def identity(self) -> tuple[int, int, int]:
        """Device, inode and size of what the name leads to now; zeros where it leads nowhere."""
        try:
            found = os.lstat(self._real)
        except OSError:
            return (0, 0, 0)
        return (found.st_dev, found.st_ino, found.st_size)

    def _is_configured(self, fd: int) -> bool:
        # O_NOFOLLOW guards the last part of the name only. The name itself may be another by now: rotated, or deleted.
        return Path(f"/proc/self/fd/{fd}").readlink().parent == self._real.parent


class FollowedFile:
    """An open log file at a position. Its methods may be called from any thread; `close` waits for a read to end."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._closed = False
        self._fd = -1
        self._offset = 0
        self._mark = b""

    def open(self, tail_lines: int | None) -> int:
        """Open it at the last `tail_lines` lines, None meaning its start; nothing before them is read.

        Returns:
            How many bytes there are from here on.

        Raises:
            KubeletError: it cannot be opened.
        """
        with self._lock:
            self._fd = self._file.open()
            if self._closed:  # given up while this waited for a thread
                self._release()
                return 0
            size = os.fstat(self._fd).st_size
            self._offset = 0 if tail_lines is None else tail_offset(self._fd, size, tail_lines)
            return size - self._offset

    def read(self, max_bytes: int = READ_BYTES) -> bytes:
        """What follows, `b""` when nothing is there yet; goes on in the new file when the log was rotated."""
        with self._lock:
            if self._fd < 0:
                return b""
            # Writers keep the old file until they reopen theirs: it is left when the new one has got its first bytes.
            if data := self._read_on(max_bytes):
                return data
            if not self._has_successor():
                return b""
            return self._read_on(max_bytes) or self._read_successor(max_bytes)

    def close(self) -> None:
        """Close it."""
        with self._lock:
            self._closed = True
            self._release()

    # Internal

    def _read_on(self, max_bytes: int) -> bytes:
        size = os.fstat(self._fd).st_size
        if size == self._offset:
            return b""
        if size < self._offset or os.pread(self._fd, len(self._mark), self._offset - len(self._mark)) != self._mark:
            self._offset, self._mark = 0, b""  # emptied in place
        data = os.pread(self._fd, max_bytes, self._offset)
        self._offset += len(data)
        self._mark = (self._mark + data)[-MARK_BYTES:]
        return data

    def _has_successor(self) -> bool:
        mine = os.fstat(self._fd)
        device, inode, size = self._file.identity()
        return size > 0 and (device, inode) != (mine.st_dev, mine.st_ino)

    def _read_successor(self, max_bytes: int) -> bytes:
        try:
            successor = self._file.open()
        except KubeletError:
            return b""
        self._release()
        self._fd, self._offset, self._mark = successor, 0, b""
        return self._read_on(max_bytes)

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def tail_offset(fd: int, size: int, lines: int) -> int:
    """Where the last `lines` lines of a file begin; reads blocks from its end and no more than needed."""
    if lines == 0 or size == 0:
        return size
    # The line feed at the very end ends the last line and begins none.
    wanted = lines + (os.pread(fd, 1, size - 1) == b"\n")
    position = size
    while position > 0:
        start = max(0, position - READ_BYTES)
        block = os.pread(fd, position - start, start)
        found = block.count(b"\n")
        if found >= wanted:
            end = len(block)
            for _ in range(wanted):
                end = block.rindex(b"\n", 0, end)
            return start + end + 1
        wanted -= found
        position = start
    return 0
