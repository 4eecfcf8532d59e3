"""Handles pseudo-terminals: opens one for an account, sets its size, and makes it a command's controlling one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.hostkubelet.account import Account, terminal_group

END_OF_INPUT = b"\x04"
"""The byte that a terminal's line discipline takes for the end of the input (Ctrl-D)."""
MAX_CELLS = 0xFFFF


@dataclass(frozen=True, slots=True)
class Terminal:
    """Both ends of a new pseudo-terminal."""

    master: int
    """The descriptor of our end."""
    slave: int
    """The descriptor of the command's end; it must be closed here once the command has it."""
    path: str
    """The name of the slave."""

    def command_line(self, argv: Sequence[str]) -> list[str]:
        """Returns the command line that starts a command with this terminal as its controlling one.

        A session leader without a terminal gets the first one that it opens. A shell does that in a millisecond and
        is on every box; no code of ours must run between fork and exec, which threads and gRPC would not allow.
        """
        return ["/bin/sh", "-c", ': <>"$0" && exec "$@"', self.path, *argv]


def open_terminal(account: Account, columns: int, rows: int) -> Terminal:
    """Opens a pseudo-terminal of this size that belongs to the account; the caller must close both its ends.

    Raises:
        OSError: the box has none left.
    """
    master, slave = os.openpty()
    set_size(master, columns, rows)
    if os.geteuid() == 0:
        # The command opens it by name, after it has become the account.
        os.fchown(slave, account.uid, terminal_group())
    return Terminal(master, slave, os.ttyname(slave))


def set_size(fd: int, columns: int, rows: int) -> None:
    """Resizes a terminal; the kernel tells the programs on it by SIGWINCH. One that is gone is no error."""
    columns, rows = (min(max(cells, 0), MAX_CELLS) for cells in (columns, rows))
    with contextlib.suppress(OSError):  # the command has ended and took the terminal along
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def foreground_group(fd: int) -> int | None:
    """Returns the process group that has the terminal now, None where nobody has."""
    try:
        group = os.tcgetpgrp(fd)
    except OSError:
        return None
    return group if group > 0 else None
