"""Files of a state folder: written whole or not at all, secrets for their owner only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

PUBLIC = 0o644
SECRET = 0o600


def write_atomic(path: Path, data: bytes, mode: int) -> None:
    """Replace a file by rename, after its bytes have reached the disk; it belongs to whom its folder belongs.

    So that `sudo cloud-server token create` beside a service of another user leaves files that the service can read.

    Raises:
        OSError: nothing was changed.
    """
    folder = path.parent
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            owner = folder.stat()
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def make_folder(path: Path) -> None:
    """Make a folder for its owner only, owned as its parent is."""
    if path.is_dir():
        return
    path.mkdir(mode=0o700, parents=True)
    owner = path.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)
