"""A cgroup for all pods of a node, in every hierarchy that the machine has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waits import Deadline

ROOT = Path("/sys/fs/cgroup")
GONE_S = 5.0


@contextmanager
def cgroup(name: str) -> Iterator[str]:
    """Make it; at the end, when its processes are dead, remove it with all below."""
    if _is_unified():
        _enable_controllers()
    try:
        make_cgroup(name)
        yield f"/{name}"
    finally:
        remove_cgroup(name)


def make_cgroup(name: str) -> None:
    """Make it in every hierarchy."""
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)


def remove_cgroup(name: str) -> None:
    """Remove it from every hierarchy, if it is there."""
    for hierarchy in _hierarchies():
        _remove(hierarchy / name)


def empty_cgroup(name: str) -> None:
    """Remove all that is below it, as the loss of power does. Its processes must be dead."""
    for hierarchy in _hierarchies():
        for child in (hierarchy / name).iterdir():
            if child.is_dir():
                _remove(child)


def _hierarchies() -> list[Path]:
    if _is_unified():
        return [ROOT]
    return [path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink()]


def _is_unified() -> bool:
    """Whether this is version 2, with one hierarchy for all controllers."""
    return (ROOT / "cgroup.controllers").exists()


def _enable_controllers() -> None:
    """A kubelet wants all that the machine has; in version 2 each is switched on for those below."""
    for controller in (ROOT / "cgroup.controllers").read_text().split():
        with suppress(OSError):  # one that the machine keeps to itself
            (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")


def _remove(top: Path) -> None:
    deadline = Deadline(GONE_S)
    while top.exists() and not deadline.passed():
        for folder, _, _ in os.walk(top, topdown=False):
            # A process that was killed may take a moment to leave its cgroup.
            with suppress(OSError):
                Path(folder).rmdir()
        if top.exists():
            time.sleep(0.02)
