"""Keeps replicas on the disk, so that a node that starts without the cloud has them. Everything here blocks.

A replica that is read is exactly one that was written, or there is none:

1. The objects of a scope and the version that they are of change in one transaction. After a power cut the last changes
   may be missing, which is an older state and no wrong one: the watch goes on from its version.
2. SQLite does not notice when a disk gives back something else than it was given. So each object has a digest over all
   that its row says, and each scope one over its version, the number of its rows and the sum of their digests. A row
   that has changed, has gone, or was not there before is found when the scope is read, and nothing of it counts then.
3. Objects of secret kinds are sealed, bound to their scope, name, uid and version: a row that is put in the place of
   another cannot be opened.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

from tunnel.core.wire.faults import KEPT_DAMAGED, STATE_NOT_WRITABLE, FaultError

SCHEMA = 1
"""The version of the tables, kept as the file's `user_version`. A file of another one is begun anew."""
CACHE_KIB = 256
"""SQLite's cache of pages, in KiB. What is asked for is in memory already."""
WRITE_WAIT_S = 5.0
"""Seconds that a write waits for another process, such as a command that looks."""
DIGEST_BYTES = 16

_TABLES = """
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL,
    version TEXT NOT NULL,
    count INTEGER NOT NULL,
    sum BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE objects (
    scope INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    version TEXT NOT NULL,
    is_sealed INTEGER NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE UNIQUE INDEX objects_by_name ON objects (scope, namespace, name);
"""


class DiskUnavailable(FaultError):
    """What was to be kept is not; the text says why. Nothing was changed."""

    default_fault = STATE_NOT_WRITABLE


class DiskDamaged(FaultError):
    """What was kept is not what is there now; the text says of which scope."""

    default_fault = KEPT_DAMAGED


class Sealer(Protocol):
    """Encrypts what must not lie on the disk in clear."""

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Returns it encrypted, so that it opens only together with the same `about`."""
        ...

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Returns what was sealed.

        Raises:
            ValueError: it was sealed about something else, by another key, or is damaged.
        """
        ...


class Stored(NamedTuple):
    """One object as it lies on the disk."""

    namespace: str
    name: str
    uid: str
    version: int
    raw: bytes


class ScopeWrite(NamedTuple):
    """What has changed in one scope."""

    scope: str
    version: int
    """The version that the scope is of then."""
    puts: Sequence[Stored] = ()
    removed: Sequence[tuple[str, str]] = ()
    """Namespaces and names."""
    anew: bool = False
    """Whether `puts` are all that there is: what was there before goes."""
    is_secret: bool = False
    """Whether the objects are sealed."""
    about: str = ""
    """What is to be known of the scope itself; of the latest write."""
    extends: bool = False
    """Whether it counts only where the scope is there: a part of one that was dropped would be taken for the whole."""


class Kept(NamedTuple):
    """A scope that was read."""

    version: int
    objects: list[Stored]
    about: str = ""


class Disk:
    """The file with all scopes."""

    def __init__(self, path: Path, sealer: Sealer | None = None) -> None:
        """Opens the file, or makes it.

        Args:
            path: of the file; its folder must be there.
            sealer: for secret objects; None where there are none.

        Raises:
            DiskUnavailable: it cannot be opened or made.
            DiskDamaged: it is no file of this kind; see `begin_anew`.
        """
        self._sealer = sealer
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._database = _opened(path)
        except OSError as error:
            raise DiskUnavailable(f"{path}: {error.strerror}") from error
        except sqlite3.OperationalError as error:
            raise DiskUnavailable(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise DiskDamaged(f"{path}: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def scopes(self) -> list[str]:
        """Returns the names of the scopes that are there.

        Raises:
            DiskDamaged: the file cannot be read.
        """
        with _damage("the list of scopes"):
            return [name for (name,) in self._database.execute("SELECT name FROM scopes ORDER BY name")]

    def read(self, scope: str) -> Kept | None:
        """Returns a scope; None when there is none of this name.

        Raises:
            DiskDamaged: it is not what was written. Nothing of it can be used.
        """
        with _damage(scope):
            self._database.execute("BEGIN")
            try:
                found = _Scope.find(self._database, scope)
                if found is None:
                    return None
                rows = self._database.execute(
                    "SELECT namespace, name, uid, version, is_sealed, body, digest FROM objects WHERE scope = ?",
                    (found.number,),
                ).fetchall()
            finally:
                self._database.execute("COMMIT")
            total = _Sum()
            objects = []
            for namespace, name, uid, version, is_sealed, body, digest in rows:
                about = _about(scope, namespace, name, uid, version, is_sealed)
                if _digest(about, body) != digest:
                    raise DiskDamaged(f"{scope}: {namespace}/{name} is not what was written")
                total.add(digest)
                raw = self._open(body, about) if is_sealed else body
                objects.append(Stored(namespace, name, uid, int(version), raw))
            if found.total != total:
                raise DiskDamaged(f"{scope}: some of its objects are not there any more")
            return Kept(found.version, objects, found.about)

    def write(self, writes: Iterable[ScopeWrite], *, durable: bool = False) -> None:
        """Writes all of these changes, or none.

        Args:
            writes: the changes.
            durable: whether they must survive a power cut, for which the disk is waited for.

        Raises:
            DiskUnavailable: none; the disk is full, say.
        """
        try:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            for write in writes:
                self._write(write)
            self._database.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError | ValueError | TypeError | OverflowError):
                raise DiskUnavailable(f"the store of objects cannot be written: {error}") from error
            raise

    def drop(self, scope: str) -> None:
        """Forgets a scope.

        Raises:
            DiskUnavailable: it is still there.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._delete(scope)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise DiskUnavailable(f"the store of objects cannot be written: {error}") from error

    # Internal

    def _write(self, write: ScopeWrite) -> None:
        database = self._database
        if write.anew:
            self._delete(write.scope)  # whatever has become of it
        scope = _Scope.find(database, write.scope)
        if scope is None:
            if write.extends:
                return
            scope = _Scope.made(database, write.scope)
        if write.anew:
            database.execute("DELETE FROM objects WHERE scope = ?", (scope.number,))  # a disk may have made up some
        for namespace, name in write.removed:
            self._take_away(scope, namespace, name)
        for one in write.puts:
            self._take_away(scope, one.namespace, one.name)
            about = _about(write.scope, one.namespace, one.name, one.uid, one.version, write.is_secret)
            body = self._seal(one.raw, about) if write.is_secret else one.raw
            digest = _digest(about, body)
            scope.total.add(digest)
            database.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (scope.number, one.namespace, one.name, one.uid, str(one.version), write.is_secret, body, digest),
            )
        scope.version, scope.about = write.version, write.about
        scope.keep(database, write.scope)

    def _delete(self, scope: str) -> None:
        self._database.execute("DELETE FROM objects WHERE scope = (SELECT id FROM scopes WHERE name = ?)", (scope,))
        self._database.execute("DELETE FROM scopes WHERE name = ?", (scope,))

    def _take_away(self, scope: _Scope, namespace: str, name: str) -> None:
        gone = self._database.execute(
            "DELETE FROM objects WHERE scope = ? AND namespace = ? AND name = ? RETURNING digest",
            (scope.number, namespace, name),
        ).fetchall()
        for (digest,) in gone:
            scope.total.remove(digest)

    def _seal(self, plain: bytes, about: bytes) -> bytes:
        assert self._sealer is not None
        return self._sealer.seal(plain, about)

    def _open(self, sealed: bytes, about: bytes) -> bytes:
        if self._sealer is None:
            raise ValueError("there is no key")
        return self._sealer.open(sealed, about)


def begin_anew(path: Path) -> None:
    """Puts a file that cannot be read aside, for whoever wants to look at it, in the place of one from before.

    Raises:
        OSError: it cannot be moved.
    """
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        path.replace(f"{path}.damaged")


# Internal


class _Sum:
    """A digest of a set of digests, which can be added and taken away in any order: their sum, and their number.

    It is for faults of a disk. Whoever can write the file could make one fit; what must be safe from them is sealed.
    """

    __slots__ = ("count", "total")

    def __init__(self, total: bytes = bytes(DIGEST_BYTES), count: int = 0) -> None:
        self.total = int.from_bytes(total)
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sum) and (self.total, self.count) == (other.total, other.count)

    __hash__ = None  # type: ignore[assignment]

    def add(self, digest: bytes) -> None:
        self.total = (self.total + int.from_bytes(digest)) % (1 << 8 * DIGEST_BYTES)
        self.count += 1

    def remove(self, digest: bytes) -> None:
        self.total = (self.total - int.from_bytes(digest)) % (1 << 8 * DIGEST_BYTES)
        self.count -= 1

    def as_bytes(self) -> bytes:
        return self.total.to_bytes(DIGEST_BYTES)


class _Scope:
    """The row of a scope."""

    __slots__ = ("about", "number", "total", "version")

    def __init__(self, number: int, about: str, version: int, total: _Sum) -> None:
        self.number = number
        self.about = about
        self.version = version
        self.total = total

    @classmethod
    def find(cls, database: sqlite3.Connection, name: str) -> _Scope | None:
        row = database.execute(
            "SELECT id, about, version, count, sum, digest FROM scopes WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        number, about, version, count, total, digest = row
        scope = cls(number, about, int(version), _Sum(total, count))
        if scope._digest(name) != digest:
            raise DiskDamaged(f"{name}: its own row is not what was written")
        return scope

    @classmethod
    def made(cls, database: sqlite3.Connection, name: str) -> _Scope:
        empty = _Sum()
        made = database.execute("INSERT INTO scopes VALUES (NULL, ?, '', '0', 0, ?, x'')", (name, empty.as_bytes()))
        assert made.lastrowid is not None
        return cls(made.lastrowid, "", 0, empty)

    def keep(self, database: sqlite3.Connection, name: str) -> None:
        database.execute(
            "UPDATE scopes SET about = ?, version = ?, count = ?, sum = ?, digest = ? WHERE id = ?",
            (self.about, str(self.version), self.total.count, self.total.as_bytes(), self._digest(name), self.number),
        )

    def _digest(self, name: str) -> bytes:
        return _digest(_joined(name, self.number, self.about, self.version, self.total.count), self.total.as_bytes())


def _opened(path: Path) -> sqlite3.Connection:
    # It is used by one thread at a time, and not always by the same.
    database = sqlite3.connect(path, timeout=WRITE_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        if schema == 0 and not database.execute("SELECT 1 FROM sqlite_schema").fetchone():
            database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        elif schema != SCHEMA:
            raise sqlite3.DatabaseError(f"its tables are of version {schema}, not {SCHEMA}")
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Tells whatever is wrong with the content of the file as damage: SQLite's own findings, and values of types that
    were never written.
    """
    try:
        yield
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        raise DiskDamaged(f"{what}: {error}") from error


def _about(scope: str, namespace: str, name: str, uid: str, version: int | str, is_sealed: int) -> bytes:
    return _joined(scope, namespace, name, uid, version, int(is_sealed))


def _joined(*parts: str | int) -> bytes:
    """Returns texts and numbers as one, so that no two rows of them are the same."""
    texts = [str(part).encode() for part in parts]
    return b"".join(b"%d:%b," % (len(text), text) for text in texts)


def _digest(about: bytes, body: bytes) -> bytes:
    digest = blake2b(about, digest_size=DIGEST_BYTES)
    digest.update(body)
    return digest.digest()
