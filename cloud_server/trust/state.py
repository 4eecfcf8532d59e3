"""Opens what a server keeps in its state folder."""

from __future__ import annotations

from pathlib import Path

from cloud_server.trust.database import DATABASE_FILE, Database
from cloud_server.trust.migration import migrate
from cloud_server.trust.records import KINDS
from cloud_server.trust.sqlite_store import SqliteStore


def open_state(state: Path) -> SqliteStore:
    """Returns the store of a state folder. Makes it at its first use, and brings in the files of earlier versions.
    Blocks.

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
