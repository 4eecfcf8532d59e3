"""The log files that the box's configuration names: where each leads, whether it can be read, its own thread.

Files are opened here and nowhere else, and only those that the configuration names: a name that meanwhile leads
elsewhere is refused, so that who may write next to a log cannot make the agent read another file. All of it blocks, on
a network file system that is gone for ever, and so runs in the file's own thread (`calls`) and in no other.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.process.blocking import BlockingCalls
from tunnel.core.wire.faults import LOG_FILE_UNREADABLE


class FileFault(KubeletError):
    """A log file cannot be read.

    Attributes:
        reason: one word for it, as container states have it.
    """

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(status, text, LOG_FILE_UNREADABLE)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Place:
    """The place that a configured name led to at first."""

    real: Path
    is_link: bool
    """Whether the name's last part was a symbolic link, as of a log that is switched from file to file."""


class LogFile:
    """A configured log file; its methods must be called in its own thread.

    Attributes:
        path: the path as configured.
        calls: the file's own thread.
    """

    def __init__(self, path: Path) -> None:
        """Touches nothing yet; the caller must have `pin` called soon."""
        self.path = path
        self.calls = BlockingCalls(f"file {path}")
        self._place: _Place | None = None

    @property
    def hanging(self) -> FileFault:
        """Returns the error for when the file's thread does not come back."""
        return FileFault(
            503, "FileNotAnswering", f"the log file {self.path} does not answer: see to the file system that it is on"
        )

    def pin(self) -> _Place:
        """Returns where the name led at the first call: a name that meanwhile leads elsewhere is refused."""
        if self._place is None:
            self._place = _Place(self.path.resolve(), self.path.is_symlink())
        return self._place

    def look(self) -> FileFault | None:
        """Returns what is in the way of reading the file; None: nothing is."""
        try:
            os.close(self.open())
        except FileFault as fault:
            return fault
        return None

    def open(self) -> int:
        """Opens the file for reading, and returns its descriptor, which the caller must close.

        Raises:
            FileFault: it is absent, not readable, no regular file, or not the one that was configured.
        """
        place, now = self.pin(), self._now()
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK  # the last one: for a FIFO
        try:
            fd = os.open(now, flags)
        except FileNotFoundError:
            raise FileFault(404, "FileNotFound", f"the log file {self.path} does not exist") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._another() from error
            raise FileFault(
                403, "FileUnreadable", f"the log file {self.path} cannot be read: {error.strerror}"
            ) from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise FileFault(403, "NotAFile", f"{self.path} is no regular file: only such can be read as logs")
        if not (self._is_first(fd, place, now) or (place.is_link and self._may_lead_to(found))):
            os.close(fd)
            raise self._another()
        return fd

    def identity(self) -> tuple[int, int, int]:
        """Returns device, inode and size of what the name leads to now; zeros where it leads nowhere."""
        try:
            found = os.lstat(self._now())
        except OSError:
            return (0, 0, 0)
        return (found.st_dev, found.st_ino, found.st_size)

    # Internal

    def _now(self) -> Path:
        place = self.pin()
        return self.path.resolve() if place.is_link else place.real

    def _is_first(self, fd: int, place: _Place, now: Path) -> bool:
        # O_NOFOLLOW guards the last part of the name only. The name itself may be another by now: rotated, or deleted.
        return now == place.real and Path(f"/proc/self/fd/{fd}").readlink().parent == place.real.parent

    def _may_lead_to(self, found: os.stat_result) -> bool:
        """Returns whether a switched link may be followed: who set it must be able to read the file without the agent.

        That is its owner. A link of root's counts where it names the file itself and not through other links, which
        may be anybody's.
        """
        link = os.lstat(self.path)
        if link.st_uid == found.st_uid != 0:
            return True
        named = Path(os.path.normpath(self.path.parent.resolve() / self.path.readlink()))
        return link.st_uid in (0, os.geteuid()) and named == named.resolve() and os.path.samestat(named.stat(), found)

    def _another(self) -> FileFault:
        text = f"{self.path} is not the file any more that it was when the agent started, and may be anybody's"
        return FileFault(403, "NotTheFile", f"{text}: restart the agent if it is right so")
