"""The watch in tests/conftest.py would be worse than none if it missed what it is for."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.support.leaks import describe, open_descriptors, unfinished_tasks
from tests.support.waits import eventually


def test_an_open_listener_is_named_by_its_address() -> None:
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (line,) = describe(open_descriptors() - before)
        assert line == f"fd {listener.fileno()}: socket 127.0.0.1:{listener.getsockname()[1]} LISTEN"
    assert open_descriptors() == before


def test_a_file_a_pipe_and_a_named_unix_socket_count(tmp_path: Path) -> None:
    before = open_descriptors()
    path = tmp_path / "connect.sock"
    with path.with_suffix(".txt").open("w") as file, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        reader, writer = os.pipe()
        try:
            found = describe(open_descriptors() - before)
        finally:
            os.close(reader)
            os.close(writer)
    assert any(line.endswith(f": {file.name}") for line in found)
    assert any(line.endswith(f"unix socket {path}") for line in found)
    assert sum(": pipe:" in line for line in found) == 2
    assert len(found) == 4


def test_the_socket_pairs_of_event_loops_do_not_count() -> None:
    before = open_descriptors()
    left, right = socket.socketpair()
    with left, right:
        assert describe(open_descriptors() - before) == []


async def test_a_task_that_goes_on_is_named() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(60), name="pump")
        (line,) = unfinished_tasks()
        assert line.startswith("task pump (")
        task.cancel()
    assert unfinished_tasks() == []


async def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, "", 7])
    assert await eventually(lambda: next(values)) == 7


async def test_eventually_gives_up_with_a_reason() -> None:
    with pytest.raises(AssertionError, match=r"not within .* the moon"):
        await eventually(lambda: False, within_s=0.02, what="the moon")
