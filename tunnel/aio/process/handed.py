"""Takes the descriptors that a service manager starts a process with (sd_listen_fds(3)), each of which has a name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, MutableMapping
from typing import NamedTuple

_FIRST = 3
"""The first descriptor that is handed: SD_LISTEN_FDS_START."""
MAX_NAME_CHARS = 255
"""The longest name of a descriptor: FDNAME of sd_pid_notify_with_fds(3)."""


class Handed(NamedTuple):
    """A descriptor, and the name of what it is for."""

    name: str
    """The name, as `descriptor_name` makes it."""
    descriptor: int


def descriptor_name(listener: str) -> str:
    """Returns the name of a listener's descriptors: its own, with `_` for `:`, which separates LISTEN_FDNAMES."""
    return "".join("_" if char == ":" or not " " <= char < "\x7f" else char for char in listener)[:MAX_NAME_CHARS]


def take_listen_fds(environ: MutableMapping[str, str]) -> list[Handed]:
    """Returns the sockets that the service manager hands over; empty when there are none, or when another process is
    meant.

    They are closed on exec from now on, and the variables are gone then, so that no child takes them for its own.

    It must be called before anything else opens a descriptor.
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
