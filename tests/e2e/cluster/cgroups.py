"""A cgroup for all pods of a node, in every hierarchy that the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waits import Deadline

ROOT = Path("/sys/fs/cgroup")
GONE_S = 5.0


@contextmanager
def cgroup(name: str) -> Iterator[str]:
    """Make it; at the end, when its processes are dead, remove it with all below."""
    try:
        for hierarchy in _hierarchies():
            (hierarchy / name).mkdir(exist_ok=True)
        yield f"/{name}"
    finally:
        remove_cgroup(name)


def remove_cgroup(name: str) -> None:
    """Remove it from every hierarchy, if it is there."""
    for hierarchy in _hierarchies():
        _remove(hierarchy / name)


def _hierarchies() -> list[Path]:
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink()]


def _remove(top: Path) -> None:
    deadline = Deadline(GONE_S)
    while top.exists() and not deadline.passed():
        for folder, _, _ in os.walk(top, topdown=False):
            # A process that was killed may take a moment to leave its cgroup.
            with suppress(OSError):
                Path(folder).rmdir()
