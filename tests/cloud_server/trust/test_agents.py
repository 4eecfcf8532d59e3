"""Names that belong to keys, and what commands beside a running server change about them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_server.trust.agents import IdentityRejected, JoinedAgents
from cloud_server.trust.database import DATABASE_FILE
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.store import StoreUnavailable
from tests.support.state import joined, opened
from tests.support.waits import eventually
from tunnel.aio.identity.validity import Validity
from tunnel.core.wire.errors import Code, SessionRefused, TunnelError

KEY, OTHER = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path) as made:
        yield made


@pytest.fixture
def agents(store: SqliteStore) -> JoinedAgents:
    return JoinedAgents(store, pins_unknown=False)


def damage(state: Path, name: str, body: bytes = b"[") -> None:
    """What a fault of the disk may leave of a record."""
    with sqlite3.connect(state / DATABASE_FILE) as connection:
        version = "(SELECT max(version) + 1 FROM records)"
        done = connection.execute(
            f"UPDATE records SET body = ?, version = {version} WHERE kind = 'agent' AND key = ?", (body, name)
        )
        assert done.rowcount == 1
    connection.close()


async def refusal(agents: JoinedAgents, name: str, key: bytes) -> TunnelError:
    with pytest.raises((IdentityRejected, SessionRefused)) as caught:
        await agents.check(name, key)
    return caught.value


async def test_a_name_belongs_to_the_key_that_joined_last(store: SqliteStore, agents: JoinedAgents) -> None:
    unknown = await refusal(agents, "box-7", KEY)
    assert "has not joined here" in str(unknown)
    assert unknown.code is Code.IDENTITY_REJECTED
    await joined(store, "box-7", KEY)
    await agents.check("box-7", KEY)
    assert "belongs to another key" in str(await refusal(agents, "box-7", OTHER))
    await joined(store, "box-7", OTHER)
    await agents.check("box-7", OTHER)
    assert "belongs to another key" in str(await refusal(agents, "box-7", KEY))


async def test_a_revoked_name_is_refused_until_it_joins_anew(store: SqliteStore, agents: JoinedAgents) -> None:
    assert not await agents.revoke("box-7")
    await joined(store, "box-7", KEY)
    assert agents.joined("box-7") is not None
    assert await agents.revoke("box-7", "stolen")
    assert "was revoked (stolen)" in str(await refusal(agents, "box-7", KEY))
    assert (list(agents.names()), agents.joined("box-7")) == ([], None)
    record = agents.get("box-7")
    assert record is not None
    assert (record.revoked is not None, record.reason) == (True, "stolen")
    await joined(store, "box-7", KEY)
    await agents.check("box-7", KEY)
    assert list(agents.names()) == ["box-7"]


async def test_another_process_sees_the_same(tmp_path: Path, store: SqliteStore, agents: JoinedAgents) -> None:
    begin = datetime.now(UTC)
    await joined(store, "box-7", KEY)
    validity = Validity(begin, begin + timedelta(days=7))
    await agents.certified("box-7", KEY, lambda record: replace(record, validity=validity))
    await joined(store, "box-8", OTHER)
    await agents.revoke("box-8")
    async with opened(tmp_path) as other:
        seen = JoinedAgents(other, pins_unknown=False)
        assert seen.get("box-7") == agents.get("box-7")
        assert seen.get("box-8") == agents.get("box-8")
        assert seen.validity("box-7") == Validity(begin, begin + timedelta(days=7))


async def test_what_a_command_did_just_now_counts_before_anybody_looked(
    tmp_path: Path, store: SqliteStore, agents: JoinedAgents
) -> None:
    async with opened(tmp_path) as command:
        await joined(command, "box-7", KEY)
    await agents.check("box-7", KEY)


async def test_a_forgotten_name_is_unknown(store: SqliteStore, agents: JoinedAgents) -> None:
    await joined(store, "box-7", KEY)
    assert await agents.forget("box-7")
    assert not await agents.forget("box-7")
    assert (agents.get("box-7"), list(agents.names())) == (None, [])
    assert "has not joined here" in str(await refusal(agents, "box-7", KEY))


async def test_a_running_server_hears_of_names_that_are_lost_and_of_no_others(
    tmp_path: Path, store: SqliteStore, agents: JoinedAgents
) -> None:
    for name in ("box-5", "box-6", "box-7", "box-8", "box-9"):
        await joined(store, name, KEY)
    await agents.revoke("box-5")
    lost: list[tuple[str, str]] = []
    agents.when_lost(lambda name, error: lost.append((name, str(error))))
    task = asyncio.get_running_loop().create_task(store.follow())
    try:
        async with opened(tmp_path) as other:
            command = JoinedAgents(other, pins_unknown=False)
            await joined(other, "box-6", OTHER)
            await asyncio.to_thread(damage, tmp_path, "box-7")
            await command.forget("box-5")
            await command.revoke("box-8")
            await command.forget("box-9")
        await eventually(lambda: len(lost) >= 2)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert lost == [("box-8", "box-8 was revoked"), ("box-9", "box-9 was taken off the server's list")]


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"{}", b'{"name": "box-7", "joined": 1, "spki_sha256": "", "revoked": null}']
)
async def test_an_agent_whose_record_is_damaged_goes_on_with_what_was_known(
    tmp_path: Path, store: SqliteStore, agents: JoinedAgents, body: bytes
) -> None:
    await joined(store, "box-7", KEY)
    await joined(store, "box-8", KEY)
    await asyncio.to_thread(damage, tmp_path, "box-7", body)
    store.catch_up()
    assert [record.key for _, record in store.unreadable()] == ["box-7"]
    await agents.check("box-7", KEY)
    assert "another key" in str(await refusal(agents, "box-7", OTHER))
    assert list(agents.names()) == ["box-7", "box-8"]


async def test_a_damaged_record_that_was_never_read_is_no_reason_to_give_up(tmp_path: Path, store: SqliteStore) -> None:
    await joined(store, "box-7", KEY)
    await joined(store, "box-8", KEY)
    await asyncio.to_thread(damage, tmp_path, "box-7")
    async with opened(tmp_path) as other:
        fresh = JoinedAgents(other, pins_unknown=True)
        refused = await refusal(fresh, "box-7", KEY)
        assert isinstance(refused, SessionRefused)
        assert (refused.code, refused.retry_after_s > 0) == (Code.INTERNAL, True)  # no identity that is rejected
        await fresh.check("box-8", KEY)
        with pytest.raises(StoreUnavailable, match="box-7 cannot be read"):
            await fresh.revoke("box-7")
        assert await fresh.forget("box-7")


async def test_two_changes_at_once_both_count(tmp_path: Path, store: SqliteStore, agents: JoinedAgents) -> None:
    await joined(store, "box-7", KEY)
    begin = datetime.now(UTC)
    validity = Validity(begin, begin + timedelta(days=7))
    async with opened(tmp_path) as other:
        theirs = JoinedAgents(other, pins_unknown=False)
        await asyncio.gather(
            agents.certified("box-7", KEY, lambda record: replace(record, validity=validity)),
            theirs.certified("box-7", KEY, lambda record: replace(record, recoveries=1)),
        )
    store.catch_up()
    record = agents.get("box-7")
    assert record is not None
    assert (record.validity, record.recoveries) == (validity, 1)


# With the user's own authority


async def test_the_first_key_of_a_name_is_pinned(tmp_path: Path, store: SqliteStore) -> None:
    pinning = JoinedAgents(store, pins_unknown=True)
    await pinning.check("box-7", KEY)
    assert "belongs to another key" in str(await refusal(pinning, "box-7", OTHER))
    assert "cloud-server agent forget" in str(await refusal(pinning, "box-7", OTHER))
    assert "has not joined" in str(await refusal(pinning, "No Name", KEY))
    async with opened(tmp_path) as other:
        await JoinedAgents(other, pins_unknown=True).forget("box-7")
    await asyncio.gather(pinning.check("box-9", KEY), pinning.check("box-9", KEY))
    store.catch_up()
    await pinning.check("box-7", OTHER)


async def test_of_two_keys_that_come_at_once_one_has_the_name(store: SqliteStore) -> None:
    pinning = JoinedAgents(store, pins_unknown=True)
    outcomes = await asyncio.gather(
        pinning.check("box-7", KEY), pinning.check("box-7", OTHER), return_exceptions=True
    )  # fmt: skip
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [IdentityRejected]


async def test_a_store_that_cannot_be_written_lets_nobody_new_in(tmp_path: Path, store: SqliteStore) -> None:
    writer = await asyncio.to_thread(locked, tmp_path)
    try:
        pinning = JoinedAgents(store, pins_unknown=True)
        store._database._writer.execute("PRAGMA busy_timeout = 1")  # type: ignore[union-attr]
        refused = await refusal(pinning, "box-7", KEY)
    finally:
        await asyncio.to_thread(writer.close)
    assert "cannot write its state folder" in str(refused)
    assert refused.code is Code.INTERNAL


def locked(state: Path) -> sqlite3.Connection:
    """A connection that keeps all others from writing."""
    connection = sqlite3.connect(state / DATABASE_FILE, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection
