"""Keeps the records of a Store in memory and in `state.db` (database.py), which commands of this machine write too."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from cloud_server.trust.database import Database, Row, Write
from cloud_server.trust.store import Change, Good, Kind, Record, StoreUnavailable, Unreadable, Watcher
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.core.wire.faults import RECORD_UNREADABLE, STATE_UNREADABLE

FOLLOW_S = 0.1
"""Seconds until a running server sees what a command changed; a look that finds nothing takes some 10 us. What is
unknown is looked for at once.
"""
TIDY_EVERY_S = 3600.0
"""How often rows of what was taken away are dropped."""
LOOK_AT_PLACE_S = 5.0
"""Seconds until it is noticed that somebody moved the file."""
COMMIT_WAIT_S = 15.0
"""Seconds that a write may take: WRITE_WAIT_S for others, and a disk that has to spin up."""

T = TypeVar("T")
_log = structlog.get_logger("cloud.store")


class SqliteStore:
    """A store in a database; see `Store`. Call `load`, then `follow` where commands may run beside this process, and
    `aclose` at the end.
    """

    def __init__(self, database: Database, kinds: Sequence[Kind[Any]]) -> None:
        """Knows no records yet. `kinds` are all that there are; records of others are left alone."""
        self._database = database
        self._kinds = {kind.name: kind for kind in kinds}
        self._records: dict[str, dict[str, Record[Any]]] = {kind.name: {} for kind in kinds}
        self._watchers: dict[str, list[Watcher[Any]]] = defaultdict(list)
        self._version = 0
        self._calls = BlockingCalls("store", wait_s=COMMIT_WAIT_S)
        self._read_fault = ""
        self._place_fault = ""

    @classmethod
    def load(cls, database: Database, kinds: Sequence[Kind[Any]]) -> SqliteStore:
        """Returns a store with all that is in a database, which is the store's own from now on. Blocks.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        store = cls(database, kinds)
        store.catch_up()
        if store.fault:
            raise StoreUnavailable(store.fault, STATE_UNREADABLE)
        return store

    # Public - Store

    def get(self, kind: Kind[T], key: str) -> Record[T] | None:
        """Returns one record, as it is known now; None when there is none. See `Store`."""
        return self._records[kind.name].get(key)

    def list(self, kind: Kind[T]) -> Sequence[Record[T]]:
        """Returns all records of a kind, in the order of their keys; see `Store`."""
        records = self._records[kind.name]
        return [records[key] for key in sorted(records)]

    def watch(self, kind: Kind[T], watcher: Watcher[T]) -> None:
        """Makes `watcher` be called for each change from now on; see `Store`."""
        self._watchers[kind.name].append(watcher)

    def catch_up(self) -> None:
        """Takes in what other processes have changed; see `Store`."""
        try:
            changes = self._database.changes(self._version)
        except sqlite3.Error as error:
            self._set_read_fault(f"{self._database.path} cannot be read: {error}")
            return
        self._set_read_fault("")
        if changes.whole and self._version:
            self._take_what_is_gone(changes.rows)
        for row in changes.rows:
            self._version = row.version
            self._take(row)

    async def commit(self, *changes: Change[Any]) -> None:
        """Makes all of these changes, or none; see `Store`.

        Raises:
            Conflict: a record is not of the version that was expected.
            StoreUnavailable: they cannot be written now.
        """
        if self._place_fault:
            raise StoreUnavailable(self._place_fault, STATE_UNREADABLE)
        writes = [
            Write(
                change.kind.name,
                change.key,
                change.kind.encode(change.value) if change.value is not None else None,
                change.expected,
            )
            for change in changes
        ]
        try:
            await self._calls.run(lambda: self._database.commit(writes))
        except NotAnswering as fault:
            raise StoreUnavailable(f"{self._database.path} cannot be written: {fault}") from fault
        self.catch_up()

    @property
    def fault(self) -> str:
        """Returns why the store cannot be read now, or would lose what is written; empty while all is well. See
        `Store`.
        """
        return self._place_fault or self._read_fault

    # Public

    def unreadable(self) -> Sequence[tuple[str, Unreadable[Any]]]:
        """Returns every record that cannot be read, with the name of its kind."""
        return [
            (kind, record)
            for kind, records in self._records.items()
            for record in records.values()
            if isinstance(record, Unreadable)
        ]

    async def follow(self) -> None:
        """Takes in what other processes change, until cancelled."""
        loop = asyncio.get_running_loop()
        look_s = loop.time()
        while True:
            self.catch_up()
            if loop.time() >= look_s:
                look_s = loop.time() + LOOK_AT_PLACE_S
                self._set_place_fault(await asyncio.to_thread(self._database.misplaced))
            await asyncio.sleep(FOLLOW_S)

    async def tidy(self) -> None:
        """Drops rows of what was taken away long ago, some at a time, until cancelled."""
        while True:
            more = False
            try:
                more = await self._calls.run(lambda: self._database.drop_tombstones(datetime.now(UTC)))
            except (NotAnswering, StoreUnavailable) as fault:
                text = "what was taken away long ago stays in the file"
                _log.warning(text, code=fault.fault.code, reason=str(fault))
            await asyncio.sleep(FOLLOW_S if more else TIDY_EVERY_S)

    async def aclose(self) -> None:
        """Closes the file, behind what is being written."""
        await self._calls.run(self._database.close)

    def close(self) -> None:
        """Closes the file, where there is no event loop. Blocks."""
        self._database.close()

    # Internal

    def _take_what_is_gone(self, rows: Sequence[Row]) -> None:
        """Takes in what was taken away since this process looked last, so long ago that no row tells of it any more."""
        there = {(row.kind, row.key) for row in rows if row.body is not None}
        gone = [(kind, key) for kind, records in self._records.items() for key in records if (kind, key) not in there]
        for kind, key in gone:
            self._take(Row(kind, key, self._version, None))

    def _take(self, row: Row) -> None:
        kind = self._kinds.get(row.kind)
        if kind is None:
            return
        records = self._records[row.kind]
        before = records.get(row.key)
        if (before.version if before is not None else -1) == row.version and row.body is not None:
            return  # known: everything was read anew
        after: Record[Any] | None = None
        if row.body is None:
            records.pop(row.key, None)
        else:
            after = records[row.key] = _read(kind, row, before)
        for watcher in self._watchers[row.kind]:
            watcher(row.key, before, after)

    def _set_read_fault(self, fault: str) -> None:
        self._read_fault = self._told(self._read_fault, fault)

    def _set_place_fault(self, fault: str) -> None:
        self._place_fault = self._told(self._place_fault, f"{fault}: restart the server" if fault else "")

    def _told(self, before: str, now: str) -> str:
        if now and now != before:
            _log.error("the state cannot be read, going on with what is known", code=STATE_UNREADABLE.code, reason=now)
        elif before and not now:
            _log.info("the state can be read again", file=str(self._database.path))
        return now


def _read(kind: Kind[Any], row: Row, before: Record[Any] | None) -> Record[Any]:
    assert row.body is not None
    try:
        return Good(row.key, row.version, kind.decode(row.body))
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        last = before.last if isinstance(before, Unreadable) else before.value if before is not None else None
        _log.error(
            "a record cannot be read",
            code=RECORD_UNREADABLE.code,
            kind=kind.name,
            key=row.key,
            reason=reason,
            known=last is not None,
        )
        return Unreadable(row.key, row.version, reason, last)
