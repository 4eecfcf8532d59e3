"""Opens what a server keeps in its state folder."""

from __future__ import annotations

from pathlib import Path

from cloud_server.trust.database import DATABASE_FILE, Database
from cloud_server.trust.migration import migrate
from cloud_server.trust.records import KINDS
from cloud_server.trust.sqlite_store import SqliteStore


def open_state(state: Path) -> SqliteStore:
    """The store of a state folder, made at its first use, and brought from the files of earlier versions. Blocking.

    Raises:
        StoreUnavailable: it cannot be opened.
    """
    database = Database(state / DATABASE_FILE)
    try:
        migrate(state, database)
        return SqliteStore.load(database, KINDS)
    except BaseException:
        database.close()
        raise
