"""A server's records as commands beside it see them, and agents that joined without a box."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from cloud_server.trust.records import AGENTS, AgentRecord
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.state import open_state
from cloud_server.trust.store import Change, Store


@contextlib.asynccontextmanager
async def opened(state: Path) -> AsyncIterator[SqliteStore]:
    """The store of a state folder, closed at the end."""
    store = await asyncio.to_thread(open_state, state)
    try:
        yield store
    finally:
        await store.aclose()


async def joined(store: Store, name: str, spki_sha256: bytes) -> AgentRecord:
    """Give a name to a key, as a join does."""
    record = AgentRecord(name=name, joined=datetime.now(UTC), spki_sha256=spki_sha256.hex())
    await store.commit(Change(AGENTS, name, record))
    return record
