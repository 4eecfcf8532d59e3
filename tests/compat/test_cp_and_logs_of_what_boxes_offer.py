"""`kubectl cp` and logs on a box that offers a shell, a unit, a file, and a file that is missing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.compat.fleets import LOG_LINES, RealFleet

pytestmark = pytest.mark.e2e


def test_files_are_copied_both_ways(boxes: RealFleet, tmp_path: Path) -> None:
    sent, there, back = tmp_path / "sent", tmp_path / "there", tmp_path / "back"
    sent.write_bytes(os.urandom(3_000_000))
    boxes.kubectl("cp", str(sent), f"box-7:{there}")
    boxes.kubectl("cp", f"box-7:{there}", str(back))
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(sent.read_bytes()).digest()
    boxes.run_kubectl("cp", f"box-7:{tmp_path / 'nowhere'}", str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
    elsewhere = boxes.run_kubectl("cp", "-c", "app.log", f"box-7:{there}", str(back))
    assert b"use -c host" in elsewhere.stderr + elsewhere.stdout


def test_logs_of_a_file(boxes: RealFleet) -> None:
    whole = boxes.kubectl("logs", "box-7", "-c", "app.log").splitlines()
    assert whole[:LOG_LINES] == [f"line {number}" for number in range(LOG_LINES)]
    assert boxes.kubectl("logs", "box-7", "-c", "app.log", "--tail=1").splitlines() == whole[-1:]
    missing = boxes.run_kubectl("logs", "box-7", "-c", "missing.log")
    assert b"missing.log" in missing.stderr + missing.stdout
    away = boxes.run_kubectl("logs", "box-8")
    assert (away.returncode, b"box-8" in away.stderr) == (1, True)
