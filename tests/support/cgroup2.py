"""The cgroup of version 2 that tests and what they start are in."""

from __future__ import annotations

from pathlib import Path

import pytest


def own_cgroup() -> Path | None:
    """Its folder; None where the machine has no cgroups of version 2."""
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    root = next((words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2"), None)
    named = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), None)
    return Path(root + named.rstrip("/")) if root is not None and named is not None else None


needs_cgroup = pytest.mark.skipif(own_cgroup() is None, reason="there are no cgroups of version 2")
