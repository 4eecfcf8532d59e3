"""The destination of audit records: a file that somebody rotates, a named pipe, or standard output.

Only the thread of an audit log calls this, and each call may take as long as a disk or a reader takes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat

STANDARD_OUTPUT = "-"
MODE = 0o640
"""The mode of a file that is made: who did what is not for everybody to read."""
LOOK_S = 0.2
"""Seconds that a write waits for a reader before it says that nothing was taken."""
_STDOUT = 1
_FIRST_OWN_DESCRIPTOR = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors after which the descriptor is still the right one."""


class AuditFile:
    """One destination, opened by `follow`."""

    def __init__(self, path: str) -> None:
        """`path` is that of a file or of a named pipe, or STANDARD_OUTPUT, of which a copy is taken."""
        self._path = path
        self._descriptor = -1
        self._regular = False
        self._torn = False
        """Whether the file ends inside a line that an earlier process, or an earlier descriptor, has not finished."""

    @property
    def name(self) -> str:
        """Returns the destination in words for people."""
        return "standard output" if self._path == STANDARD_OUTPUT else self._path

    def follow(self) -> bool:
        """Opens the destination if it is not open, or if its path leads to another file now.

        Returns:
            Whether what is written next begins a file, or goes to another one than before.

        Raises:
            OSError: it cannot be opened.
        """
        if self._descriptor >= 0 and not self._was_rotated():
            return False
        self.close()
        if self._path == STANDARD_OUTPUT:
            # Blocking, as it is: O_NONBLOCK would hold for every process that shares it.
            self._descriptor = fcntl.fcntl(_STDOUT, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN_DESCRIPTOR)
        else:
            # Without blocking for the sake of named pipes: opening one that nobody reads would wait.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags, MODE)
        status = os.fstat(self._descriptor)
        self._regular = stat.S_ISREG(status.st_mode)
        self._torn = self._regular and self._path != STANDARD_OUTPUT and _ends_inside_a_line(self._path)
        return True

    def was_emptied(self) -> bool:
        """Returns whether the file has nothing in it any more, as after logrotate's copytruncate."""
        return self._regular and os.fstat(self._descriptor).st_size == 0

    def write(self, data: bytes) -> int:
        """Writes as much as goes in one call.

        Returns:
            How many bytes were taken; 0 when a pipe or a terminal took none within LOOK_S.

        Raises:
            OSError: nothing can be written now. `follow` opens the destination anew if that may help.
        """
        try:
            if self._torn:
                self._torn = not os.write(self._descriptor, b"\n")
            if self._regular:
                return os.write(self._descriptor, data)
            if not self._is_ready():
                return 0
            # What is ready takes so much without waiting (POSIX, write).
            return os.write(self._descriptor, data[: select.PIPE_BUF])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in _NO_ROOM:
                self.close()
            raise

    def close(self) -> None:
        """Closes the destination; `follow` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    # Internal

    def _was_rotated(self) -> bool:
        if self._path == STANDARD_OUTPUT:
            return False
        try:
            there = os.stat(self._path)  # noqa: PTH116  # what may be anything is no Path
        except FileNotFoundError:
            return True
        mine = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(LOOK_S * 1000))


def _ends_inside_a_line(path: str) -> bool:
    """Returns whether a file's last byte does not end a line; False when it may not be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # the same
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False
