"""The folder of one run, and what a run that was killed has left behind: the next one removes it.

Processes, mounts and the nodes' networks end with the run, whatever happens; the kernel sees to that. Files, cgroups
and the routers' namespaces do not.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.e2e.cluster.cgroups import remove_cgroup
from tests.support.netns import BoxNamespace, remove_abandoned

PREFIX = "longline-kube-"
LOCK = "lock"
"""Locked while the run lives; in it, the index of each router, which is in the names of namespaces and cgroups."""


@contextlib.contextmanager
def workplace(routers: Iterable[BoxNamespace]) -> Iterator[Path]:
    """A folder for this run, removed at the end."""
    remove_leftovers()
    # A short one: the path of a unix socket has no room for a test's.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(" ".join(str(router.index) for router in routers))
            lock.flush()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove what runs that are gone have left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # One that has no lock yet is just being made.
        with contextlib.suppress(OSError), (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for index in map(int, lock.read().split()):
                if remove_abandoned(index):
                    remove_cgroup(cgroup_name(index))
            shutil.rmtree(folder, ignore_errors=True)


def cgroup_name(index: int) -> str:
    """Of the node behind a router."""
    return f"longline-{index}"
