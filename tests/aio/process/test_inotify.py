"""inotify, and its absence. That it wakes for all that matters is tested with who uses it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.waits import sooner_than
from tunnel.aio.process.inotify import CREATE, Inotify

pytestmark = pytest.mark.may_block("the test itself writes the file")


async def test_it_wakes_for_what_is_watched_and_no_longer(tmp_path: Path) -> None:
    inotify = Inotify()
    watch = inotify.add(bytes(tmp_path), CREATE)
    (tmp_path / "one").touch()
    with sooner_than(30, "waking up"):
        await inotify.changed(60)
    inotify.remove(watch)
    await inotify.changed(0.05)  # the end of a watch is an event too
    (tmp_path / "two").touch()
    before_s = time.monotonic()
    await inotify.changed(0.1)
    assert time.monotonic() - before_s > 0.05
    inotify.close()


async def test_without_it_nothing_is_watched(tmp_path: Path) -> None:
    inotify = Inotify()
    inotify.close()
    assert inotify.add(bytes(tmp_path), CREATE) == -1
    inotify.remove(-1)
    await inotify.changed(0.01)
    inotify.close()
