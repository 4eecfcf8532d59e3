"""Keeps the file `state.db`: records as rows of SQLite, shared by a running server and its commands. Everything here
blocks.

Write-ahead logging lets one process write while others read. Each change gets the next number of one count, so that a
reader who knows a number can ask for what came after it; what is taken away stays as a row without a body, for the same
reason.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from cloud_server.trust.store import Conflict, StoreUnavailable
from tunnel.core.wire.faults import STATE_NOT_WRITABLE, STATE_UNREADABLE

DATABASE_FILE: Final = "state.db"
SCHEMA = 1
"""The version of the tables, kept as the file's `user_version`. A file of a later one is left alone."""
WRITE_WAIT_S = 5.0
"""Seconds that a write waits for that of another process; each takes milliseconds."""
READER_CACHE_KIB = 64
"""The reader's cache of pages, in KiB. All records are in the server's memory already."""

_TABLES = """
CREATE TABLE records (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    body BLOB,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX records_by_version ON records (version);
CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """A record as a row of the file."""

    kind: str
    key: str
    version: int
    body: bytes | None
    """The value of the record; None when it was taken away."""


class Write(NamedTuple):
    """A row that is to be written."""

    kind: str
    key: str
    body: bytes | None
    expected: int | None = None
    """The version that the row must have; see `store.Change`."""


class Database:
    """The open file: a connection to write with, and one to read with, so that a reader never waits for a writer."""

    def __init__(self, path: Path) -> None:
        """Opens the file, and makes it unless it is there.

        Raises:
            StoreUnavailable: it cannot be opened or made.
        """
        self.path = path
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        try:
            _make(path)
            self._writer = _connect(path, WRITE_WAIT_S)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")  # a token that was used must stay used
            self._set_up(self._writer)
            self._reader = _connect(path, 0.0)
            self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
            self._reader.execute("PRAGMA query_only = ON")
            status = path.stat()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise unavailable(path, "opened", error) from error
        except BaseException:
            self.close()
            raise
        self._place = (status.st_dev, status.st_ino)
        self._data_version = -1
        """SQLite's own count, as the reader sees it, of what other connections changed; -1 before the first look."""

    def close(self) -> None:
        """Closes both connections. The last of all processes to do so merges the write-ahead log into the file."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def changes(self, after: int) -> list[Row]:
        """Returns the rows with a number higher than `after`, in the order of the numbers. When nothing was changed
        since the last call, it costs next to nothing and returns no rows.

        Raises:
            sqlite3.Error: the file cannot be read now.
        """
        assert self._reader is not None
        (data_version,) = self._reader.execute("PRAGMA data_version").fetchone()
        if data_version == self._data_version:
            return []
        rows = self._reader.execute(
            "SELECT kind, key, version, body FROM records WHERE version > ? ORDER BY version", (after,)
        ).fetchall()
        self._data_version = data_version
        return [Row._make(row) for row in rows]

    def commit(self, writes: Sequence[Write]) -> None:
        """Writes all of these rows, or none.

        Raises:
            Conflict: one is not as expected.
            StoreUnavailable: they cannot be written.
        """
        with self.transaction() as cursor:
            for write in writes:
                self.write(cursor, write)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Cursor]:
        """Does all that is done inside the block, or nothing.

        Raises:
            StoreUnavailable: it cannot be done.
        """
        assert self._writer is not None
        cursor = self._writer.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    cursor.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise unavailable(self.path, "written", error) from error
            raise
        finally:
            cursor.close()

    @staticmethod
    def write(cursor: sqlite3.Cursor, write: Write) -> None:
        """Writes one row, inside a transaction.

        Raises:
            Conflict: it is not as expected.
        """
        if write.expected is not None:
            found = cursor.execute(
                "SELECT version FROM records WHERE kind = ? AND key = ? AND body IS NOT NULL", (write.kind, write.key)
            ).fetchone()
            if (found[0] if found is not None else 0) != write.expected:
                raise Conflict(write.kind, write.key)
        cursor.execute(
            "INSERT OR REPLACE INTO records (kind, key, version, body)"
            " VALUES (?, ?, (SELECT ifnull(max(version), 0) + 1 FROM records), ?)",
            (write.kind, write.key, write.body),
        )

    def note(self, name: str) -> str | None:
        """Returns what was noted of the file itself under a name; None when nothing was.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        assert self._writer is not None
        try:
            found = self._writer.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise unavailable(self.path, "read", error) from error
        return found[0] if found is not None else None

    @staticmethod
    def add_note(cursor: sqlite3.Cursor, name: str, text: str) -> None:
        """Notes a text under a name, inside a transaction."""
        cursor.execute("INSERT INTO notes (name, text) VALUES (?, ?)", (name, text))

    def misplaced(self) -> str:
        """Returns why what is written here would be lost: somebody moved or deleted the file; empty when nobody did."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return f"{self.path} was taken away while it was in use"
        except OSError:
            return ""  # of the way to it nothing is known now
        if (status.st_dev, status.st_ino) != self._place:
            return f"{self.path} was replaced while it was in use"
        return ""

    # Internal

    def _set_up(self, connection: sqlite3.Connection) -> None:
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema > SCHEMA:
            text = f"{self.path} was written by a later version of cloud-server: run that one"
            raise StoreUnavailable(text, STATE_UNREADABLE)
        if schema == 0:
            with self.transaction() as cursor:
                # Two commands may find a fresh file at once: the second finds it set up when its turn comes.
                if cursor.execute("PRAGMA user_version").fetchone() == (0,):
                    for statement in filter(str.strip, _TABLES.split(";")):
                        cursor.execute(statement)
                    cursor.execute(f"PRAGMA user_version = {SCHEMA}")


def unavailable(path: Path, what: str, error: sqlite3.Error | OSError) -> StoreUnavailable:
    """Returns the error for a file that cannot be opened or written."""
    fault = STATE_NOT_WRITABLE if what in ("written", "changed") else STATE_UNREADABLE
    if isinstance(error, OSError):
        return StoreUnavailable(f"{error.filename or path} cannot be {what}: {error.strerror}", fault)
    text = str(error)
    if getattr(error, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        text += "; bring a copy of it back (docs/configuration.md, The state folder)"
    return StoreUnavailable(f"{path} cannot be {what}: {text}", fault)


def _make(path: Path) -> None:
    """Makes an empty file with the owner of its folder; SQLite gives its own files beside it the same owner and mode.
    Leaves a file that is there alone.
    """
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            owner = path.parent.stat()
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def _connect(path: Path, wait_s: float) -> sqlite3.Connection:
    # Not shared between threads at a time: the reader is the event loop's, the writer that of one thread after another.
    return sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
