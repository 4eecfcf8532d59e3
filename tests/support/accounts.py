"""Processes of other accounts: needs root, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None,
    reason="becoming another account needs root, setpriv and unshare",
)

# In a mount namespace of its own the interpreter is in reach of everybody: beneath a folder of root's it is not.
_OPENED = """
closed=$1 prefix=$2 kept=$3; shift 3
mount --bind "$prefix" "$kept" && mount -t tmpfs -o mode=755 none "$closed" && mkdir -p "$prefix" &&
mount --move "$kept" "$prefix" && exec "$@"
"""


def as_account(uid: int, kept: Path) -> list[str]:
    """The words before a command of ours that make it run as an account without a name, and with no groups.

    `kept` is a folder that exists, and is needed for a moment if the interpreter lies where only root may look.
    """
    switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    prefix = Path(sys.base_prefix)
    closed = next((one for one in reversed(prefix.parents) if not one.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return switch
    return ["unshare", "--mount", "sh", "-euc", _OPENED, "sh", str(closed), str(prefix), str(kept), *switch]
