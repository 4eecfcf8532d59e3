"""Noticing that another file lies behind a path, however it came there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.waits import Deadline, sooner_than
from tunnel.aio.process import file_watch
from tunnel.aio.process.file_watch import FileWatch, folders_of

pytestmark = pytest.mark.may_block("the test itself writes the files")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noticed at once is noticed by inotify, not by looking."""
    monkeypatch.setattr(file_watch, "POLL_S", 300.0)
    monkeypatch.setattr(file_watch, "SETTLE_S", 0.02)


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[FileWatch]:
    watch = FileWatch(lambda: [path])
    try:
        await watch.start()
        yield watch
    finally:
        watch.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text("one")
    return path


def config_map(folder: Path, number: int, text: str) -> Path:
    """A folder as the kubelet mounts a ConfigMap; the next number swaps it for a new one as the kubelet does."""
    data = folder / f"..2026_{number}"
    data.mkdir(parents=True)
    (data / "agent.toml").write_text(text)
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").rename(folder / "..data")
    path = folder / "agent.toml"
    if not path.is_symlink():
        path.symlink_to("..data/agent.toml")
    return path


def renamed_over(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("two")
    new.rename(path)


def removed_and_written(path: Path) -> None:
    path.unlink()
    path.write_text("two")


@pytest.mark.parametrize("change", [lambda path: path.write_text("two!"), renamed_over, removed_and_written])
async def test_a_file_that_is_written_or_replaced(path: Path, change: Callable[[Path], object]) -> None:
    async with watching(path) as watch:
        change(path)
        with sooner_than(100, "noticing"):
            await watch.changed()
        change(path)  # and again: the file of now is the one that is watched
        with sooner_than(100, "noticing"):
            await watch.changed()


async def test_a_link_that_leads_elsewhere(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "far" / "other.toml"
    other.parent.mkdir()
    other.write_text("two!")
    link = tmp_path / "etc" / "link.toml"
    link.parent.mkdir()
    link.symlink_to(path)
    async with watching(link) as watch:
        (link.parent / "new").symlink_to(other)
        (link.parent / "new").rename(link)
        with sooner_than(100, "noticing"):
            await watch.changed()
        renamed_over(other)  # in the folder that is watched since then
        with sooner_than(100, "noticing"):
            await watch.changed()


async def test_a_config_map(tmp_path: Path) -> None:
    link = config_map(tmp_path / "etc", 1, "one")
    async with watching(link) as watch:
        for number in (2, 3):
            config_map(tmp_path / "etc", number, f"number {number}")
            with sooner_than(100, "noticing"):
                await watch.changed()
            assert link.read_text() == f"number {number}"


async def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    async with watching(tmp_path / "later.toml") as watch:
        (tmp_path / "later.toml").write_text("one")
        with sooner_than(100, "noticing"):
            await watch.changed()


async def test_what_is_beside_the_file_is_no_change(tmp_path: Path, path: Path) -> None:
    async with watching(path) as watch:
        (tmp_path / "other").write_text("two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await watch.changed()


async def test_where_nothing_tells_it_looks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "POLL_S", 0.02)
    async with watching(path) as watch:
        watch._inotify.close()  # as where the machine has none left
        path.write_text("two!")
        await watch.changed()


async def test_a_change_in_several_steps_is_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "SETTLE_S", 0.2)
    async with watching(path) as watch:
        changed = asyncio.get_running_loop().create_task(watch.changed())
        deadline, text = Deadline(0.5), ""
        while not deadline.passed():
            text += "x"
            path.write_text(text)
            await asyncio.sleep(0.01)
            assert not changed.done()
        await changed
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await watch.changed()


def test_the_folders_that_decide_where_a_path_leads(tmp_path: Path) -> None:
    link = config_map(tmp_path / "etc", 1, "one")
    etc = tmp_path / "etc"
    assert folders_of(link) == {etc, etc / "..2026_1"}
    (tmp_path / "up").symlink_to("etc/../etc")
    assert folders_of(tmp_path / "up" / "agent.toml") == {tmp_path, etc, etc / "..2026_1"}
    (tmp_path / "round").symlink_to("round")
    assert folders_of(tmp_path / "round") == {tmp_path}
