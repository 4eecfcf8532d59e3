"""Who an operator is: by certificate, or by a token of which only a hash is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cloud_server.trust.users import USER_NAME, Users
from tests.support.waits import eventually


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path, "longline")


@pytest.mark.parametrize(
    ("uri", "user"),
    [
        ("spiffe://longline/user/ann", "ann"),
        ("spiffe://longline/user/", None),
        ("spiffe://elsewhere/user/ann", None),
        ("spiffe://longline/agent/box-7", None),
        ("spiffe://longline/join/0123", None),
        ("spiffe://longline/server", None),
        ("", None),
        (None, None),
    ],
)
def test_certificates(users: Users, uri: str | None, user: str | None) -> None:
    assert users.authenticate(uri, None) == user


def test_tokens(tmp_path: Path, users: Users) -> None:
    users.add_token("ann", "first")
    users.add_token("ann", "second")
    users.add_token("bob", "third")
    assert users.authenticate(None, "first") is None
    users.reload()
    assert [users.authenticate(None, token) for token in ("first", "second", "third", "fourth", "")] == [
        "ann",
        "ann",
        "bob",
        None,
        None,
    ]
    assert users.authenticate("spiffe://longline/agent/box-7", "first") == "ann"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "users").iterdir())
    assert b"first" not in kept
    assert len(list((tmp_path / "users").iterdir())) == 3


async def test_a_running_server_follows_what_commands_change(tmp_path: Path, users: Users) -> None:
    task = asyncio.get_running_loop().create_task(users.follow())
    try:
        await asyncio.to_thread(Users(tmp_path, "longline").add_token, "ann", "first")
        await eventually(lambda: users.authenticate(None, "first") == "ann")
        for path in await asyncio.to_thread(lambda: list((tmp_path / "users").iterdir())):
            await asyncio.to_thread(path.unlink)
        await eventually(lambda: users.authenticate(None, "first") is None)
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("content", ["", "[", "[]", "3", "{}", '{"user": "eve"}', "\udcff"])
def test_a_damaged_file_stands_for_nobody_and_hides_no_other(tmp_path: Path, users: Users, content: str) -> None:
    users.add_token("ann", "first")
    users.add_token("bob", "second")
    bad = tmp_path / "users" / "bad.json"
    bad.write_bytes(content.encode(errors="surrogateescape"))
    with capture_logs() as logs:
        users.reload()
        users.reload()
    assert [(log["file"], log["log_level"]) for log in logs] == [(str(bad), "error")]  # told once, by name
    assert [users.authenticate(None, token) for token in ("first", "second")] == ["ann", "bob"]
    next((tmp_path / "users").glob("ann-*")).unlink()
    users.reload()
    assert [users.authenticate(None, token) for token in ("first", "second")] == [None, "bob"]


@pytest.mark.parametrize("name", ["ann", "a", "ann@example.com", "a_b-c.d", "x" * 64])
def test_names(name: str) -> None:
    assert USER_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "-a", "a/", "a/b", "..", "a b", "a\n", "system:masters", "x" * 65])
def test_names_that_are_none(name: str) -> None:
    assert not USER_NAME.fullmatch(name)
