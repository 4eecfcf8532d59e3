"""Descriptors that a process was started without, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
from tunnel.aio.process.descriptors import open_missing_descriptors
open_missing_descriptors()
nothing = os.stat(os.devnull)
same = [os.path.samestat(os.fstat(number), nothing) and os.get_inheritable(number) for number in (0, 1, 2)]
os.write({report}, ascii(same).encode())
"""


@pytest.mark.parametrize(
    ("missing", "report", "expected"), [("2>&-", 1, "[False, False, True]"), ("<&- 1>&-", 2, "[True, True, False]")]
)
def test_those_that_are_missing_lead_nowhere(missing: str, report: int, expected: str) -> None:
    command = f'"$1" -c "$2" {missing}'
    program = PROGRAM.format(report=report)
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, program], stdin=subprocess.PIPE, capture_output=True, text=True,
        check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.stdout + done.stderr == expected
