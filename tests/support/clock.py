"""Processes whose clock is wrong, or that ran long ago: libfaketime in them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

needs_faketime = pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")


def clock_of(offset: str) -> list[str]:
    """The words before a command that let it see another wall clock, such as `-830d` or `+6d`; no timer is touched.

    The command takes the place of these words: `faketime` itself would stay, and leave it behind when it is killed.
    """
    return ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", f"FAKETIME={offset}", f"LD_PRELOAD={library()}"]


def clock_in(path: Path) -> list[str]:
    """The same for a clock that goes by a file, in which the offset may change while the command runs."""
    return ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1", f"FAKETIME_TIMESTAMP_FILE={path}",
            f"LD_PRELOAD={library()}"]  # fmt: skip


@functools.cache
def library() -> str:
    """The library that `faketime` preloads."""
    words = ("faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD")
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
