"""Writes files of a state folder: whole or not at all, secrets for their owner only."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

PUBLIC = 0o644
SECRET = 0o600


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is to be written, with what it will hold."""

    path: Path
    data: bytes = field(repr=False)
    mode: int
    """The permissions of the file: `PUBLIC` or `SECRET`."""
    owner: tuple[int, int] | None = None
    """The numbers of the account and the group that it belongs to; None: those of its folder, if this is root."""


def write_atomic(path: Path, data: bytes, mode: int) -> None:
    """Replaces a file by rename, after its bytes have reached the disk; see `write_together`. Blocking.

    Raises:
        OSError: nothing was changed.
    """
    write_together([NewFile(path, data, mode)])


def write_together(files: Iterable[NewFile]) -> None:
    """Replaces files in this order, none before the bytes of all have reached the disk. Blocking.

    They belong to the owner of their folder, unless they say otherwise, so that `sudo cloud-server token create` beside
    a service of another user leaves files that the service can read.

    Raises:
        OSError: nothing was changed, unless the disk failed between two renames.
    """
    with ExitStack() as stack:
        renames = []
        folders: dict[Path, None] = {}
        for file in files:
            renames.append((_prepare(file, stack), file.path))
            folders[file.path.parent] = None
        for temporary, path in renames:
            temporary.replace(path)
        for folder in folders:
            sync_folder(folder)


def write_once(path: Path, data: bytes, mode: int) -> None:
    """Makes a file unless there is one, which then stays as it is. Blocking.

    Raises:
        OSError: it cannot be made.
    """
    with ExitStack() as stack, contextlib.suppress(FileExistsError):
        path.hardlink_to(_prepare(NewFile(path, data, mode), stack))
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Writes renames in a folder to the disk, for boxes that lose their power. Some file
    systems cannot, and need not.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


Stamp = tuple[tuple[int, int, int], ...]
"""A value that changes with the content of files: time, size and inode of each, or zeros if it cannot be looked at."""


def stamp(files: Iterable[Path]) -> Stamp:
    """Returns what these files are now, to be compared with the result of a later call. Blocking."""
    stamps = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def check_writable(folder: Path) -> None:
    """Checks that files can be put into a folder, which may not exist yet, without touching anything. Blocking.

    Raises:
        OSError: they cannot.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def make_folder(path: Path) -> None:
    """Makes a folder for its owner only, owned as its parent is, unless it is there. Blocking.

    Asking first would lose the race of two commands that both find no folder.

    Raises:
        OSError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    owner = path.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


# Internal


def _prepare(file: NewFile, stack: ExitStack) -> Path:
    """Writes a file under a temporary name beside its own, and returns that name.

    The file is removed with the stack, unless it was renamed by then.
    """
    folder = file.path.parent
    # Not by `tempfile`, which brings a dozen modules: half a megabyte of a box.
    temporary = folder / f".{file.path.name}.{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    stack.callback(temporary.unlink, missing_ok=True)
    with os.fdopen(handle, "wb") as opened:
        made = os.fstat(opened.fileno())
        if file.owner is not None and file.owner != (made.st_uid, made.st_gid):
            os.fchown(opened.fileno(), *file.owner)
        elif file.owner is None and os.geteuid() == 0 and (owner := folder.stat()).st_uid != 0:
            os.fchown(opened.fileno(), owner.st_uid, owner.st_gid)
        os.fchmod(opened.fileno(), file.mode)
        opened.write(file.data)
        opened.flush()
        os.fsync(opened.fileno())
    return temporary
