"""A mount that hangs, as one of a network file system whose server is gone: FUSE without anybody behind it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_MNT_DETACH = 2
"""umount2(2)."""


def missing_for_hanging_mounts() -> str:
    """Why there can be none here; an empty string when there can."""
    if os.geteuid() != 0:
        return "only root can mount"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse"
    return ""


@contextlib.contextmanager
def hanging_mount(folder: Path) -> Iterator[Path]:
    """Mount it on an empty folder. Whoever looks into it waits until the block ends, and then gets an error."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
        try:
            yield folder
        finally:
            libc.umount2(os.fsencode(folder), _MNT_DETACH)
    finally:
        os.close(server)  # ends every wait
