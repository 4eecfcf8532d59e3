"""Hands this terminal over while a command on a box has it: raw mode, its size, and its change.

It works only where os.name is "posix"; `raw_terminal` says so elsewhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tunnel.tool.relay import STDIN


class NoTerminal(Exception):
    """There is no terminal to hand over; the text says what to do."""


class Terminal:
    """The size of this terminal, and a socket that becomes readable when that changes."""

    def __init__(self, changed: socket.socket) -> None:
        self._changed = changed

    def waits_for(self) -> socket.socket:
        """Returns the socket that becomes readable: see `remote_exec.Resizes`."""
        return self._changed

    def size(self) -> tuple[int, int]:
        """Returns columns and rows."""
        for descriptor in (1, 0, 2):
            try:
                return tuple(os.get_terminal_size(descriptor))  # type: ignore[return-value]  # it is a pair
            except OSError:
                continue
        return tuple(shutil.get_terminal_size())  # type: ignore[return-value]


@contextmanager
def raw_terminal() -> Iterator[Terminal]:
    """Puts standard input into raw mode for the block, and back as it was at the end, however that comes.

    Raises:
        NoTerminal: standard input is no terminal, or this system has none that is known here.
    """
    if sys.platform == "win32":
        raise NoTerminal("-t needs a POSIX terminal: use longline ssh, or exec without -t")
    if not os.isatty(STDIN):
        raise NoTerminal("-t needs a terminal as standard input: leave it out for a pipe or a file")
    import termios
    import tty

    before = termios.tcgetattr(STDIN)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    def changed(_number: int, _frame: object) -> None:
        try:
            theirs.send(b"\0")
        except OSError:  # full: the change is known already
            return

    handler = signal.signal(signal.SIGWINCH, changed)
    try:
        tty.setraw(STDIN, termios.TCSANOW)  # what was typed before we were ready is not thrown away
        yield Terminal(ours)
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        ours.close()
        theirs.close()
