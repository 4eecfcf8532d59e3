"""A running daemon's configuration: what is applied, what stays, and what is said of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.waits import eventually
from tunnel.aio.operate.desired_state import DesiredState, Reloaded
from tunnel.aio.process.config import LogConfig, load

pytestmark = pytest.mark.may_block("the test itself writes the file")


@dataclass(frozen=True, kw_only=True)
class Config:
    labels: dict[str, str] = field(default_factory=dict)
    state: str = "here"
    log: LogConfig = field(default_factory=LogConfig)


class Daemon:
    """What matches the file, and what it was told."""

    def __init__(self, path: Path, text: str) -> None:
        path.write_text(text)
        self.path = path
        self.applied: list[Config] = []
        self.breaks = False
        self.reloads: list[Reloaded] = []
        self.desired = DesiredState(
            path, load(path, Config), load=lambda where: load(where, Config), apply=self._apply,
            only_at_start=("state",), on_reloaded=self.reloads.append,
        )  # fmt: skip

    async def _apply(self, old: Config, new: Config) -> None:
        assert old == self.desired.current
        if self.breaks:
            raise RuntimeError("a bug")
        self.applied.append(new)

    async def becomes(self, text: str) -> Reloaded:
        self.path.write_text(text)
        return await self.desired.reload("a test")

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(self.desired.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "agent.toml", 'labels.site = "lyon"\n')


async def test_what_is_different_is_applied_told_and_counted(daemon: Daemon) -> None:
    with capture_logs() as logs:
        told = await daemon.becomes('labels.site = "paris"\n')
    assert told == Reloaded(generation=2, changed=['labels.site: "lyon" -> "paris"'])
    assert daemon.applied == [daemon.desired.current]
    assert daemon.desired.current.labels == {"site": "paris"}
    assert daemon.reloads == [told]
    (line,) = logs
    assert (line["event"], line["changed"]) == ("configuration applied", told.changed)
    assert daemon.desired.as_json()["generation"] == 2


async def test_a_file_that_says_the_same_is_no_change(daemon: Daemon) -> None:
    with capture_logs() as logs:
        assert await daemon.becomes('# a remark\nlabels.site = "lyon"\n') == Reloaded(generation=1)
    assert daemon.applied == []
    assert logs == []
    assert daemon.reloads == []


async def test_a_bad_file_keeps_the_old_one_and_says_so_until_it_is_good(daemon: Daemon) -> None:
    with capture_logs() as logs:
        told = await daemon.becomes("labels.site = 7\n")
        await daemon.desired.reload("again")
    assert "agent.toml:1: labels.site: must be a string" in told.fault
    assert daemon.desired.fault == told.fault
    assert daemon.desired.as_json()["fault"] == told.fault
    assert daemon.applied == []
    assert daemon.desired.generation == 1
    assert [line["log_level"] for line in logs] == ["error"]  # once, however often it is asked
    with capture_logs() as logs:
        await daemon.becomes('labels.site = "lyon"\n')
    assert daemon.desired.fault == ""
    assert [line["event"] for line in logs] == ["the configuration can be used again"]


async def test_a_file_that_is_gone_changes_nothing(daemon: Daemon) -> None:
    daemon.path.unlink()
    assert "cannot be read: No such file" in (await daemon.desired.reload("a test")).fault
    assert daemon.applied == []


async def test_what_needs_a_restart_is_named_until_it_is_as_it_was(daemon: Daemon) -> None:
    told = await daemon.becomes('state = "there"\nlabels.site = "paris"\n')
    assert told.needs_restart == ['state: "here" -> "there"']
    assert daemon.desired.current.labels == {"site": "paris"}
    assert (await daemon.becomes('state = "there"\n')).needs_restart == ['state: "here" -> "there"']
    assert (await daemon.becomes("")).needs_restart == []


async def test_a_fault_of_the_daemon_is_told_and_ends_nothing(daemon: Daemon) -> None:
    daemon.breaks = True
    with capture_logs():
        told = await daemon.becomes('labels.site = "paris"\n')
    assert "a fault of the daemon" in told.fault
    daemon.breaks = False
    assert (await daemon.becomes('labels.site = "nice"\n')).fault == ""


async def test_it_follows_the_file(daemon: Daemon) -> None:
    async with daemon.following():
        daemon.path.write_text('labels.site = "paris"\n')
        await eventually(lambda: daemon.applied)
        new = daemon.path.with_suffix(".new")
        new.write_text('labels.site = "nice"\n')
        new.rename(daemon.path)
        await eventually(lambda: daemon.desired.generation == 3)


async def test_a_change_before_it_followed_is_seen_too(daemon: Daemon) -> None:
    daemon.path.write_text('labels.site = "paris"\n')
    async with daemon.following():
        await eventually(lambda: daemon.desired.generation == 2)


async def test_a_file_that_no_reader_can_stand_changes_nothing(daemon: Daemon) -> None:
    told = await daemon.becomes("a = " + "[" * 5000)
    assert told.fault.endswith("agent.toml: is nested too deeply")
    assert (told.generation, daemon.applied) == (1, [])


async def test_a_fault_of_ours_while_it_is_read_changes_nothing(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path) -> Config:
        raise ZeroDivisionError

    monkeypatch.setattr(daemon.desired, "_load", broken)
    with capture_logs() as logs:
        told = await daemon.desired.reload("a test")
    assert told.fault.startswith("a fault of the daemon while it was read")
    assert [line["code"] for line in logs if line.get("exc_info")] == ["LL6001"]


async def test_what_was_applied_by_half_is_not_good_because_it_is_looked_at_again(daemon: Daemon) -> None:
    daemon.breaks = True
    told = await daemon.becomes('labels.site = "paris"\n')
    assert "a restart applies all" in told.fault
    daemon.breaks = False
    again = await daemon.desired.reload("a test")
    assert (again.fault, daemon.desired.fault) == (told.fault, told.fault)
