"""Descriptors that a process is started with: from a service manager (sd_listen_fds(3)), which knows each by a name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, MutableMapping
from typing import NamedTuple

_FIRST = 3
"""SD_LISTEN_FDS_START."""
MAX_NAME_CHARS = 255
"""Of sd_pid_notify_with_fds(3), FDNAME."""


class Handed(NamedTuple):
    """A descriptor and what it is for."""

    name: str
    """As `descriptor_name` makes it."""
    descriptor: int


def descriptor_name(listener: str) -> str:
    """The name that a listener's descriptors go by: its own with `_` for `:`, which separates LISTEN_FDNAMES."""
    return "".join("_" if char == ":" or not " " <= char < "\x7f" else char for char in listener)[:MAX_NAME_CHARS]


def take_listen_fds(environ: MutableMapping[str, str]) -> list[Handed]:
    """The sockets that the service manager hands over, closed on exec from now on; the variables are gone then, so that
    no child takes them for its own. Empty when there are none, or when they are meant for another process.

    To be called before anything else opens a descriptor.
    """
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    return list(_sockets(int(count), names))


# Internal


def _sockets(count: int, names: list[str]) -> Iterator[Handed]:
    for descriptor in range(_FIRST, _FIRST + count):
        with contextlib.suppress(OSError):  # one that is not open
            os.set_inheritable(descriptor, False)
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                index = descriptor - _FIRST
                yield Handed(names[index] if index < len(names) else "", descriptor)
