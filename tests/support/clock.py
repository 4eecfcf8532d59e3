"""Processes whose clock is wrong, or that ran long ago: libfaketime in front of a command."""

from __future__ import annotations

import shutil

import pytest

needs_faketime = pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")


def clock_of(offset: str) -> list[str]:
    """The words before a command that let it see another wall clock, such as `-830d` or `+6d`; no timer is touched."""
    return ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", offset]
