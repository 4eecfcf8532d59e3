"""Brings a state folder of earlier versions, which had a file for each record, into the database. Everything blocks.

It goes one way: the records in one transaction, then the old folders aside, as they were. A version that knows only the
folders would find none and see no agent; so where each was is a link that cannot be followed, with which it does not
start.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from cloud_server.trust.database import DATABASE_FILE, Database, Write, unavailable
from cloud_server.trust.records import AGENTS, JOIN_TOKENS, USER_TOKENS
from tunnel.aio.process.files import PUBLIC, make_folder, write_atomic
from tunnel.core.wire.faults import RECORD_UNREADABLE

OLD_FOLDERS: Final = ("agents", "users", "tokens")
MIGRATED_FOLDER: Final = "migrated"
BLOCK: Final = f"{DATABASE_FILE}/is-what-newer-cloud-servers-use"
"""The path that the links lead to: below a file nothing can be, so that looking there fails with "Not a directory"."""
_NOTE = "migrated"
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""The faults of the machine at the moment, not of a file: the migration is tried again at the next start."""
_README = f"""\
These folders are what this server kept in files before {DATABASE_FILE} took their place. Nothing reads them any more;
delete them when you do not mean to go back.

To go back to the earlier version: stop the server, remove the links agents, users and tokens beside this folder, and
move these three there. What was changed since (agents that joined or were revoked, tokens) is not in them.
"""

_log = structlog.get_logger("cloud.store")


def migrate(state: Path, database: Database) -> None:
    """Brings in the records that are in folders; does nothing where that was done.

    Raises:
        StoreUnavailable: it cannot be done now, and nothing was changed.
    """
    if database.note(_NOTE) is None:
        _bring_in(state, database)
    try:
        _move_aside(state)
    except OSError as error:
        raise unavailable(state, "changed", error) from error


# Internal


def _bring_in(state: Path, database: Database) -> None:
    with database.transaction() as cursor:
        if database.note(_NOTE) is not None:
            return  # another command was faster
        try:
            writes = list(_old_records(state))
        except OSError as error:
            raise unavailable(state, "read", error) from error
        for write in writes:
            database.write(cursor, write)
        database.add_note(cursor, _NOTE, datetime.now(UTC).isoformat())
    if writes:
        _log.info("records were brought from files into the database", count=len(writes), folder=str(state))


def _old_records(state: Path) -> Iterator[Write]:
    for path in sorted((state / "agents").glob("*.json")):
        body = _read(path)
        yield Write(AGENTS.name, path.stem, body)
    for path in sorted((state / "users").glob("*.json")):
        body = _read(path)
        with suppress(ValueError, KeyError, TypeError):
            yield Write(USER_TOKENS.name, USER_TOKENS.decode(body).sha256, body)
            continue
        yield Write(USER_TOKENS.name, path.stem, body)
    for path in sorted((state / "tokens").glob("*.json")):
        yield Write(JOIN_TOKENS.name, path.stem, _read(path))
    for path in sorted((state / "tokens" / "used").glob("*.json")):
        yield Write(JOIN_TOKENS.name, path.stem, _as_used(path, _read(path)))


def _read(path: Path) -> bytes:
    """Returns a file's bytes; empty for a file that cannot be read, which makes a record that cannot be read either.

    Raises:
        OSError: it is not the file's fault.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in _PASSING:
            raise
        _log.error("a file cannot be read", code=RECORD_UNREADABLE.code, file=str(path), reason=error.strerror)
        return b""


def _as_used(path: Path, body: bytes) -> bytes:
    """Returns the body of a used token's record with the time of its use: its file said so by its place."""
    try:
        values = dict(json.loads(body))
        used = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return json.dumps({**values, "used": used.isoformat()}).encode()
    except (OSError, ValueError, TypeError):
        return body


def _move_aside(state: Path) -> None:
    """Moves the old folders aside, and puts links in their place. It is done also after a migration that was cut off
    behind its transaction.
    """
    for name in OLD_FOLDERS:
        old = state / name
        if old.is_dir() and not old.is_symlink():
            aside = state / MIGRATED_FOLDER
            if not aside.is_dir():
                make_folder(aside)
                write_atomic(aside / "README.txt", _README.encode(), PUBLIC)
            with suppress(FileNotFoundError):  # another command was faster
                old.rename(_free(aside / name))
        with suppress(FileExistsError):
            old.symlink_to(BLOCK)


def _free(path: Path) -> Path:
    """Returns a path that nothing has yet: of several migrations, after steps back, each keeps its folders."""
    if not path.exists():
        return path
    return next(free for count in range(2, 1000) if not (free := path.with_name(f"{path.name}-{count}")).exists())
