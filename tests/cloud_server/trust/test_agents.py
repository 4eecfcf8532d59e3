"""Names that belong to keys, and what commands beside a running server change about them."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from cloud_server.trust.agents import AgentStore, IdentityRejected
from tests.support.waits import eventually
from tunnel.core.wire.errors import Code, TunnelError

KEY, OTHER = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
def store(tmp_path: Path) -> AgentStore:
    return AgentStore(tmp_path, pins_unknown=False)


async def refusal(store: AgentStore, name: str, key: bytes) -> IdentityRejected:
    with pytest.raises(IdentityRejected) as caught:
        await store.check(name, key)
    return caught.value


async def test_a_name_belongs_to_the_key_that_joined_last(store: AgentStore) -> None:
    unknown = await refusal(store, "box-7", KEY)
    assert "has not joined here" in str(unknown)
    assert unknown.code is Code.IDENTITY_REJECTED
    await asyncio.to_thread(store.record, "box-7", KEY)
    await store.check("box-7", KEY)
    assert "belongs to another key" in str(await refusal(store, "box-7", OTHER))
    await asyncio.to_thread(store.record, "box-7", OTHER)
    await store.check("box-7", OTHER)
    assert "belongs to another key" in str(await refusal(store, "box-7", KEY))


async def test_a_revoked_name_is_refused_until_it_joins_anew(store: AgentStore) -> None:
    assert not await asyncio.to_thread(store.revoke, "box-7")
    await asyncio.to_thread(store.record, "box-7", KEY)
    assert store.joined("box-7") is not None
    assert await asyncio.to_thread(store.revoke, "box-7")
    assert "was revoked" in str(await refusal(store, "box-7", KEY))
    assert (list(store.names()), store.joined("box-7")) == ([], None)
    record = store.get("box-7")
    assert record is not None
    assert record.revoked is not None
    await asyncio.to_thread(store.record, "box-7", KEY)
    await store.check("box-7", KEY)
    assert list(store.names()) == ["box-7"]


def test_another_process_sees_the_same(tmp_path: Path, store: AgentStore) -> None:
    store.record("box-7", KEY)
    store.record("box-8", OTHER)
    store.revoke("box-8")
    other = AgentStore(tmp_path, pins_unknown=False)
    assert other.get("box-7") is None
    other.reload()
    assert other.get("box-7") == store.get("box-7")
    assert other.get("box-8") == store.get("box-8")


def test_a_folder_that_did_not_change_is_not_read_again(
    tmp_path: Path, store: AgentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record("box-7", KEY)
    os.utime(tmp_path / "agents", (1, 1))
    store.reload()
    reads: list[Path] = []
    monkeypatch.setattr("cloud_server.trust.agents._read", reads.append)
    store.reload()
    assert reads == []
    assert list(store.names()) == ["box-7"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"name": "box-7", "joined": 1, "spki_sha256": "", "revoked": null}']
)
async def test_an_agent_whose_file_is_damaged_is_refused_and_the_others_are_not(
    tmp_path: Path, store: AgentStore, content: bytes
) -> None:
    await asyncio.to_thread(store.record, "box-7", KEY)
    await asyncio.to_thread(store.record, "box-8", KEY)
    await asyncio.to_thread((tmp_path / "agents" / "box-7.json").write_bytes, content)
    await asyncio.to_thread(store.reload)
    await refusal(store, "box-7", KEY)
    await store.check("box-8", KEY)


async def test_a_forgotten_name_is_unknown(store: AgentStore) -> None:
    await asyncio.to_thread(store.record, "box-7", KEY)
    assert await asyncio.to_thread(store.forget, "box-7")
    assert (store.get("box-7"), list(store.names())) == (None, [])
    assert "has not joined here" in str(await refusal(store, "box-7", KEY))


async def test_a_running_server_hears_of_revocations_by_commands(tmp_path: Path, store: AgentStore) -> None:
    for name in ("box-7", "box-8", "box-9"):
        await asyncio.to_thread(store.record, name, KEY)
    lost: list[tuple[str, TunnelError]] = []
    task = asyncio.get_running_loop().create_task(store.follow(lambda name, error: lost.append((name, error))))
    try:
        command = AgentStore(tmp_path, pins_unknown=False)
        await asyncio.to_thread(command.reload)
        await asyncio.to_thread(command.revoke, "box-8")
        await asyncio.to_thread((tmp_path / "agents" / "box-9.json").unlink)
        await eventually(lambda: len(lost) == 2)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert sorted((name, str(error)) for name, error in lost) == [
        ("box-8", "box-8 was revoked"),
        ("box-9", "box-9 was revoked"),
    ]
    assert list(store.names()) == ["box-7"]


def test_what_was_recorded_is_never_lost_to_a_reader(tmp_path: Path, store: AgentStore) -> None:
    done = threading.Event()

    def read_on() -> None:
        while not done.is_set():
            store.reload()

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for number in range(50):
            store.record(f"box-{number}", KEY)
            assert store.get(f"box-{number}") is not None
    finally:
        done.set()
        reader.join()
    assert len(list(store.names())) == 50


async def test_with_ones_own_authority_the_first_key_has_the_name(tmp_path: Path) -> None:
    store = AgentStore(tmp_path, pins_unknown=True)
    outcomes = await asyncio.gather(
        *(store.check("box-7", key) for key in (KEY, OTHER, KEY, OTHER)), return_exceptions=True
    )
    refused = [isinstance(outcome, IdentityRejected) for outcome in outcomes]
    assert refused in ([False, True, False, True], [True, False, True, False])
    assert "has not joined" in str(await refusal(store, "../evil", KEY))
    assert [path.name for path in (tmp_path / "agents").iterdir()] == ["box-7.json"]


async def test_with_ones_own_authority_forgetting_is_the_way_back(tmp_path: Path) -> None:
    store = AgentStore(tmp_path, pins_unknown=True)
    await store.check("box-7", KEY)
    assert "else run cloud-server agent forget" in str(await refusal(store, "box-7", OTHER))
    await asyncio.to_thread(store.revoke, "box-7")
    assert "was revoked: run cloud-server agent forget" in str(await refusal(store, "box-7", KEY))
    assert await asyncio.to_thread(store.forget, "box-7")
    assert not await asyncio.to_thread(store.forget, "box-7")
    await store.check("box-7", OTHER)


async def test_a_state_folder_that_cannot_be_written_lets_nobody_new_in(tmp_path: Path) -> None:
    (tmp_path / "agents").touch()
    store = AgentStore(tmp_path, pins_unknown=True)
    assert "cannot write its state folder" in str(await refusal(store, "box-7", KEY))


def test_files_hold_no_more_than_they_must(tmp_path: Path, store: AgentStore) -> None:
    store.record("box-7", KEY)
    values = json.loads((tmp_path / "agents" / "box-7.json").read_text())
    assert set(values) == {"name", "joined", "spki_sha256", "revoked"}
    assert values["spki_sha256"] == KEY.hex()
