"""Waking up when a file changes, and polling where nothing tells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.hostkubelet.change_watch import ChangeWatch
from tests.support.waits import sooner_than

pytestmark = pytest.mark.may_block("the test itself writes the file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text("one\n")
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("two\n")


@pytest.mark.parametrize(
    "change",
    [append, lambda path: path.write_text(""), lambda path: path.rename(path.with_suffix(".1")), Path.unlink],
)
async def test_it_wakes_at_once(path: Path, fd: int, change: Callable[[Path], Any]) -> None:
    watch = ChangeWatch()
    watch.add(fd)
    change(path)
    with sooner_than(30, "waking up"):
        await watch.changed(60)
    watch.close()
    watch.close()


async def test_a_silent_file_is_looked_at_now_and_then(fd: int) -> None:
    watch = ChangeWatch()
    watch.add(fd)
    before_s = time.monotonic()
    await watch.changed(0.1)
    assert time.monotonic() - before_s > 0.05
    watch.close()


async def test_only_the_file_of_now_is_watched(path: Path, fd: int, tmp_path: Path) -> None:
    watch = ChangeWatch()
    watch.add(fd)
    (tmp_path / "next.log").touch()
    other = os.open(tmp_path / "next.log", os.O_RDONLY)
    watch.add(other)
    await watch.changed(0.05)  # the end of the first watch is an event too
    append(path)
    before_s = time.monotonic()
    await watch.changed(0.1)
    assert time.monotonic() - before_s > 0.05
    watch.close()
    os.close(other)


async def test_a_box_that_has_no_inotify_left(
    fd: int, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = ChangeWatch()
    watch.close()  # as where inotify_init1 fails
    watch.add(fd)
    append(path)
    await watch.changed(0.01)
    watch.close()
