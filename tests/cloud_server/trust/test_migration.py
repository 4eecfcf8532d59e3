"""A state folder of the version before the database: all that it knew is known, once, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import Authenticator, token_digest
from cloud_server.trust.migration import OLD_FOLDERS
from cloud_server.trust.records import AGENTS, JOIN_TOKENS
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.state import open_state
from cloud_server.trust.store import Good, StoreUnavailable, Unreadable
from cloud_server.trust.users import Users
from tunnel.aio.identity.validity import Validity

BEGIN = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
KEY = b"\x01" * 32


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))


def agent(name: str, **more: str | None) -> dict[str, str | None]:
    return {"name": name, "joined": BEGIN.isoformat(), "spki_sha256": KEY.hex(), "revoked": None, **more}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """As that version left it."""
    until = (BEGIN + timedelta(days=7)).isoformat()
    write(tmp_path / "agents" / "box-1.json", agent("box-1"))
    certified = agent("box-2", certificate_from=BEGIN.isoformat(), certificate_until=until)
    write(tmp_path / "agents" / "box-2.json", certified)
    write(tmp_path / "agents" / "box-3.json", agent("box-3", revoked=until))
    digest = token_digest("secret")
    token = {"user": "ann", "sha256": digest, "created": BEGIN.isoformat()}
    write(tmp_path / "users" / f"ann-{digest[:12]}.json", token)
    write(tmp_path / "tokens" / "0123.json", {"agent": "box-4", "expires": until})
    write(tmp_path / "tokens" / "used" / "4567.json", {"agent": "box-1", "expires": until})
    os.utime(tmp_path / "tokens" / "used" / "4567.json", (BEGIN.timestamp(), BEGIN.timestamp()))
    return tmp_path


@pytest.fixture
def store(state: Path) -> Iterator[SqliteStore]:
    made = open_state(state)
    yield made
    made.close()


def test_everything_is_known(store: SqliteStore) -> None:
    agents = JoinedAgents(store, pins_unknown=False)
    assert list(agents.names()) == ["box-1", "box-2"]
    assert agents.joined("box-1") == BEGIN
    assert agents.validity("box-2") == Validity(BEGIN, BEGIN + timedelta(days=7))
    revoked = agents.get("box-3")
    assert revoked is not None
    assert revoked.revoked == BEGIN + timedelta(days=7)
    caller = Authenticator("longline", Users(store)).by_token("secret")
    assert caller is not None
    assert (caller.name, caller.until) == ("ann", None)
    tokens = {record.key: record.value for record in store.list(JOIN_TOKENS) if isinstance(record, Good)}
    assert (tokens["0123"].agent, tokens["0123"].used) == ("box-4", None)
    assert abs((tokens["4567"].used or datetime.now(UTC)) - BEGIN) < timedelta(seconds=1)


def test_the_old_files_are_kept_aside_with_a_note(state: Path) -> None:
    before = {path.relative_to(state): path.read_bytes() for path in state.rglob("*.json")}
    open_state(state).close()
    aside = state / "migrated"
    assert {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*.json")} == before
    assert "To go back" in (aside / "README.txt").read_text()


def test_it_is_done_once(state: Path) -> None:
    first = open_state(state)
    version = max(record.version for record in first.list(JOIN_TOKENS))
    first.close()
    before = sorted(path.relative_to(state) for path in state.rglob("*"))
    again = open_state(state)
    assert max(record.version for record in again.list(JOIN_TOKENS)) == version
    again.close()
    assert sorted(path.relative_to(state) for path in state.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "box-9"}', "\udcff"])
def test_a_damaged_file_is_a_record_that_cannot_be_read_and_no_loss(state: Path, content: str) -> None:
    for path in (state / "agents" / "box-9.json", state / "users" / "bob-1.json", state / "tokens" / "89ab.json"):
        path.write_bytes(content.encode(errors="surrogateescape"))
    store = open_state(state)
    unreadable = [(kind, record.key) for kind, record in store.unreadable()]
    assert unreadable == [("agent", "box-9"), ("user token", "bob-1"), ("join token", "89ab")]
    assert list(JoinedAgents(store, pins_unknown=False).names()) == ["box-1", "box-2", "box-9"]
    store.close()
    again = open_state(state)
    assert isinstance(again.get(AGENTS, "box-9"), Unreadable)
    again.close()


def test_a_version_without_the_database_does_not_start_in_such_a_folder(state: Path) -> None:
    open_state(state).close()
    # What it did first: `AgentStore.reload` took a folder that is not there for one without agents, and failed
    # (`cannot start`) at whatever else came of looking at it.
    with pytest.raises(NotADirectoryError):
        (state / "agents").stat()
    for name in OLD_FOLDERS:
        assert "newer-cloud-server" in str((state / name).readlink())
        with pytest.raises(OSError, match=r"File exists|Not a directory"):
            (state / name).mkdir()


def test_a_fresh_folder_is_closed_to_that_version_too(tmp_path: Path) -> None:
    open_state(tmp_path).close()
    assert (tmp_path / "agents").is_symlink()
    assert not (tmp_path / "migrated").exists()


def test_what_fails_before_the_end_changes_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = Path.read_bytes, 0

    def no_descriptors(path: Path) -> bytes:
        nonlocal count
        count += 1
        if count == 4:
            raise OSError(24, "Too many open files", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", no_descriptors)
    with pytest.raises(StoreUnavailable, match="Too many open files"):
        open_state(state)
    monkeypatch.undo()
    assert not (state / "migrated").exists()
    store = open_state(state)
    assert len(store.list(AGENTS)) == 3
    assert not store.unreadable()
    store.close()


def test_one_that_was_cut_off_behind_its_transaction_is_finished(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, _target: object) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        open_state(state)
    monkeypatch.undo()
    write(state / "agents" / "box-5.json", "not looked at any more: the database counts")
    store = open_state(state)
    assert [record.key for record in store.list(AGENTS)] == ["box-1", "box-2", "box-3"]
    assert not store.unreadable()
    store.close()
    assert (state / "migrated" / "agents" / "box-1.json").exists()


def test_a_step_back_and_forth_keeps_what_each_had(state: Path) -> None:
    open_state(state).close()
    for name in OLD_FOLDERS:
        (state / name).unlink()
        shutil.copytree(state / "migrated" / name, state / name)
    open_state(state).close()
    assert sorted(path.name for path in (state / "migrated").iterdir() if path.is_dir()) == [
        "agents", "agents-2", "tokens", "tokens-2", "users", "users-2"
    ]  # fmt: skip
