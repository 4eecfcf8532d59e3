"""The store's promises, on real files, with more than one process's worth of connections."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cloud_server.trust import database, sqlite_store
from cloud_server.trust.database import DATABASE_FILE, Database
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.store import Change, Conflict, Good, Kind, StoreUnavailable, Unreadable, value_of
from tests.support.waits import eventually

NUMBERS: Kind[int] = Kind("number", lambda value: str(value).encode(), int)
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
OTHERS: Kind[int] = Kind("other", lambda value: str(value).encode(), int)


def load(state: Path) -> SqliteStore:
    return SqliteStore.load(Database(state / DATABASE_FILE), (NUMBERS, OTHERS))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await asyncio.to_thread(load, tmp_path)
    yield made
    await made.aclose()


@pytest.fixture
async def beside(store: SqliteStore, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """As another process has it."""
    made = await asyncio.to_thread(load, tmp_path)
    yield made
    await made.aclose()


def number(store: SqliteStore, key: str) -> int | None:
    return value_of(store.get(NUMBERS, key))


async def test_what_is_committed_is_there_for_all_and_over_restarts(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit(Change(NUMBERS, "b", 2), Change(NUMBERS, "a", 1), Change(OTHERS, "a", 9))
    await store.commit(Change(NUMBERS, "c", 3))
    await store.commit(Change(NUMBERS, "c", None))
    again = await asyncio.to_thread(load, tmp_path)
    for each in (store, again):
        assert [(record.key, value_of(record)) for record in each.list(NUMBERS)] == [("a", 1), ("b", 2)]
        assert each.get(NUMBERS, "c") is None
        assert value_of(each.get(OTHERS, "a")) == 9
    await again.aclose()


async def test_a_change_for_another_version_changes_nothing(store: SqliteStore, beside: SqliteStore) -> None:
    await store.commit(Change(NUMBERS, "a", 1, expected=0))
    first = store.get(NUMBERS, "a")
    assert first is not None
    with pytest.raises(Conflict):
        await beside.commit(Change(NUMBERS, "b", 5), Change(NUMBERS, "a", 2, expected=0))
    await beside.commit(Change(NUMBERS, "a", 2, expected=first.version))
    with pytest.raises(Conflict):
        await store.commit(Change(NUMBERS, "a", 3, expected=first.version))
    store.catch_up()
    assert (number(store, "a"), number(store, "b")) == (2, None)
    await store.commit(Change(NUMBERS, "a", None))
    await beside.commit(Change(NUMBERS, "a", 4, expected=0))  # what was taken away is not there


async def test_of_many_writers_each_change_is_the_next(store: SqliteStore, beside: SqliteStore) -> None:
    async def add(to: SqliteStore) -> None:
        while True:
            to.catch_up()
            found = to.get(NUMBERS, "sum")
            try:
                version = found.version if found is not None else 0
                await to.commit(Change(NUMBERS, "sum", (value_of(found) or 0) + 1, expected=version))
            except Conflict:
                continue
            return

    await asyncio.gather(*(add(each) for each in (store, beside) for _ in range(8)))
    store.catch_up()
    assert number(store, "sum") == 16


async def test_watchers_are_told_what_was_and_what_is(store: SqliteStore, beside: SqliteStore) -> None:
    told: list[tuple[str, int | None, int | None]] = []
    store.watch(NUMBERS, lambda key, before, after: told.append((key, value_of(before), value_of(after))))
    await store.commit(Change(NUMBERS, "a", 1), Change(OTHERS, "x", 1))
    await beside.commit(Change(NUMBERS, "a", 2))
    store.catch_up()
    await beside.commit(Change(NUMBERS, "a", 3))
    await beside.commit(Change(NUMBERS, "a", None))  # seen with the one before as one change
    following = asyncio.get_running_loop().create_task(store.follow())
    try:
        await eventually(lambda: len(told) == 3)
    finally:
        following.cancel()
        await asyncio.wait([following])
    assert told == [("a", None, 1), ("a", 1, 2), ("a", 2, None)]


async def test_a_record_that_cannot_be_read_keeps_what_was_known(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit(Change(NUMBERS, "a", 1))
    rubbish: Kind[str] = Kind(NUMBERS.name, str.encode, bytes.decode)
    other = await asyncio.to_thread(lambda: SqliteStore.load(Database(tmp_path / DATABASE_FILE), [rubbish]))
    await other.commit(Change(rubbish, "a", "no number"), Change(rubbish, "b", "neither"))
    with capture_logs() as logs:
        store.catch_up()
        store.catch_up()
    a, b = store.list(NUMBERS)
    assert isinstance(a, Unreadable)
    assert isinstance(b, Unreadable)
    assert (a.last, b.last) == (1, None)
    assert [(log["key"], log["known"]) for log in logs] == [("a", True), ("b", False)]  # each is told once
    assert [(kind, record.key) for kind, record in store.unreadable()] == [("number", "a"), ("number", "b")]
    await other.commit(Change(rubbish, "a", "7"))
    store.catch_up()
    assert store.get(NUMBERS, "a") == Good("a", 4, 7)
    await other.aclose()


class Failing:
    """A connection whose reads fail as long as it is wanted."""

    def __init__(self, real: sqlite3.Connection, error: sqlite3.Error) -> None:
        self._real = real
        self.error: sqlite3.Error | None = error

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        if self.error is not None:
            raise self.error
        return self._real.execute(*arguments)


async def test_a_database_that_cannot_be_read_for_a_moment_takes_nothing_away(
    store: SqliteStore, beside: SqliteStore
) -> None:
    await store.commit(Change(NUMBERS, "a", 1))
    told: list[str] = []
    store.watch(NUMBERS, lambda key, _before, _after: told.append(key))
    real = store._database._reader
    assert real is not None
    failing = Failing(real, sqlite3.OperationalError("disk I/O error"))
    store._database._reader = failing  # type: ignore[assignment]
    await beside.commit(Change(NUMBERS, "b", 2))
    with capture_logs() as logs:
        for _ in range(3):
            store.catch_up()
        assert (number(store, "a"), told) == (1, [])
        assert "disk I/O error" in store.fault
        failing.error = None
        store.catch_up()
    assert (number(store, "b"), told, store.fault) == (2, ["b"], "")
    assert [log["log_level"] for log in logs] == ["error", "info"]  # not one for each look
    store._database._reader = real


async def test_no_descriptors_left_is_no_fault_at_all(store: SqliteStore, beside: SqliteStore) -> None:
    """They are open already, so that a flood of connections takes nobody's name away."""
    await store.commit(Change(NUMBERS, "a", 1))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.pipe()
        await beside.commit(Change(NUMBERS, "a", 2))
        store.catch_up()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (number(store, "a"), store.fault) == (2, "")


async def test_a_full_disk_changes_nothing(store: SqliteStore) -> None:
    await store.commit(Change(NUMBERS, "a", 1))
    writer = store._database._writer
    assert writer is not None
    (pages,) = await asyncio.to_thread(lambda: writer.execute("PRAGMA page_count").fetchone())
    await asyncio.to_thread(writer.execute, f"PRAGMA max_page_count = {pages}")
    big: Kind[int] = Kind(NUMBERS.name, lambda value: b"9" * value, int)
    with pytest.raises(StoreUnavailable, match=r"state\.db cannot be written: database or disk is full"):
        await store.commit(Change(NUMBERS, "b", 2), Change(big, "c", 100_000))
    assert (number(store, "a"), store.get(NUMBERS, "b")) == (1, None)
    await store.commit(Change(NUMBERS, "a", 3))
    assert number(store, "a") == 3


@pytest.mark.parametrize("content", [b"rubbish" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"state\.db cannot be opened: .* bring a copy of it back"):
        load(tmp_path)
    assert (tmp_path / DATABASE_FILE).read_bytes() == content


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    load(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="a later version of cloud-server"):
        load(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        load(tmp_path / "missing")


async def test_a_file_that_was_taken_away_is_told_and_takes_nothing_with_it(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit(Change(NUMBERS, "a", 1))
    await asyncio.to_thread((tmp_path / DATABASE_FILE).rename, tmp_path / "elsewhere.db")
    following = asyncio.get_running_loop().create_task(store.follow())
    try:
        await eventually(lambda: "was taken away" in store.fault)
    finally:
        following.cancel()
        await asyncio.wait([following])
    assert number(store, "a") == 1
    with pytest.raises(StoreUnavailable, match="was taken away"):
        await store.commit(Change(NUMBERS, "a", 2))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_makes_belongs_to_whom_the_folder_belongs(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 12345, 12346)
    store = load(folder)
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()}
    store.close()
    assert owners.keys() == {DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm"}
    assert set(owners.values()) == {(12345, 12346)}


def rows(state: Path) -> int:
    connection = sqlite3.connect(state / DATABASE_FILE)
    try:
        (count,) = connection.execute("SELECT count(*) FROM records").fetchone()
    finally:
        connection.close()
    return int(count)


async def dropped(store: SqliteStore, now: datetime) -> None:
    while await asyncio.to_thread(store._database.drop_tombstones, now):
        pass


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tombstones may go soon, and few at once."""
    monkeypatch.setattr(database, "TOMBSTONES_BEHIND", 1)
    monkeypatch.setattr(database, "DROPPED_AT_ONCE", 2)


@pytest.mark.usefixtures("near")
async def test_what_was_taken_away_goes_after_a_day(store: SqliteStore, tmp_path: Path) -> None:
    for key in "abcdefg":
        await store.commit(Change(NUMBERS, key, 1))
        await store.commit(Change(NUMBERS, key, None))
    await store.commit(Change(NUMBERS, "kept", 1))
    await store.commit(Change(NUMBERS, "last", 1), Change(NUMBERS, "last", None))  # has the highest number
    assert rows(tmp_path) == 9
    await dropped(store, NOW)
    await dropped(store, NOW + DAY / 2)
    assert rows(tmp_path) == 9
    await dropped(store, NOW + DAY)
    assert rows(tmp_path) == 2
    await store.commit(Change(NUMBERS, "next", 2))
    again = await asyncio.to_thread(load, tmp_path)
    for each in (store, again):
        assert [(one.key, one.version) for one in each.list(NUMBERS)] == [("kept", 15), ("next", 18)]
    await again.aclose()
    await dropped(store, NOW)  # somebody set the clock back: the day begins anew
    await dropped(store, NOW + DAY / 2)
    assert rows(tmp_path) == 3
    await dropped(store, NOW + DAY)
    assert rows(tmp_path) == 2


@pytest.mark.usefixtures("near")
async def test_who_was_away_when_it_went_misses_nothing(store: SqliteStore, beside: SqliteStore) -> None:
    await store.commit(Change(NUMBERS, "a", 1), Change(NUMBERS, "b", 2), Change(OTHERS, "a", 3))
    beside.catch_up()
    told: list[tuple[str, int | None, int | None]] = []
    beside.watch(NUMBERS, lambda key, before, after: told.append((key, value_of(before), value_of(after))))
    await store.commit(Change(NUMBERS, "a", None), Change(NUMBERS, "c", 5))
    await store.commit(Change(NUMBERS, "d", 6))
    await dropped(store, NOW)
    await dropped(store, NOW + DAY)
    assert rows(store._database.path.parent) == 4
    beside.catch_up()
    assert told == [("a", 1, None), ("c", None, 5), ("d", None, 6)]  # and nothing of b, which is as it was
    await store.commit(Change(NUMBERS, "b", 7))
    beside.catch_up()
    assert told[3:] == [("b", 2, 7)]


async def test_a_running_server_drops_it(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: None
) -> None:
    monkeypatch.setattr(database, "TOMBSTONES_KEPT", timedelta(0))
    monkeypatch.setattr(sqlite_store, "TIDY_EVERY_S", 0.0)
    for key in "abcdefg":
        await store.commit(Change(NUMBERS, key, 1), Change(NUMBERS, key, None))
    tidying = asyncio.get_running_loop().create_task(store.tidy())
    try:
        await eventually(lambda: rows(tmp_path) == 1)
    finally:
        tidying.cancel()
        await asyncio.wait([tidying])


async def test_what_was_taken_away_is_not_read_at_start(store: SqliteStore, tmp_path: Path) -> None:
    for key in "abcdefg":
        await store.commit(Change(NUMBERS, key, 1), Change(NUMBERS, key, None))
    await store.commit(Change(NUMBERS, "kept", 1))
    made = await asyncio.to_thread(Database, tmp_path / DATABASE_FILE)
    read = made.changes(0)
    assert ([row.key for row in read.rows], read.whole) == (["kept"], True)
    await asyncio.to_thread(made.close)
