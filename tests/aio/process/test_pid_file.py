"""The lock on a state folder: one process at a time, found by others, passed on with its descriptor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.aio.process.pid_file import AlreadyRunning, PidFile, running


def test_one_at_a_time_and_others_find_it(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    assert running(path) is None
    lock = PidFile.take(path)
    lock.write()
    assert running(path) == os.getpid()
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()} runs with {tmp_path} already"):
        PidFile.take(path)
    os.close(lock.descriptor)
    assert running(path) is None
    again = PidFile.take(path)
    os.close(again.descriptor)


def test_the_lock_is_held_as_long_as_anybody_has_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    first = PidFile.take(path)
    second = PidFile(os.dup(first.descriptor))
    os.close(first.descriptor)
    second.write()
    assert running(path) == os.getpid()
    os.close(second.descriptor)
    assert running(path) is None


def test_a_lock_without_a_number_in_it(tmp_path: Path) -> None:
    lock = PidFile.take(tmp_path / "server.pid")
    with pytest.raises(AlreadyRunning, match="another process runs"):
        PidFile.take(tmp_path / "server.pid")
    os.close(lock.descriptor)
