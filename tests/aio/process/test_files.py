"""Files of a state folder: whole or not at all, with the right owner and permissions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnel.aio.process.files import (
    PUBLIC,
    SECRET,
    NewFile,
    check_writable,
    make_folder,
    stamp,
    write_atomic,
    write_once,
    write_together,
)

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_permissions_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    write_atomic(tmp_path / "secret", b"s", SECRET)
    write_atomic(tmp_path / "public", b"p", PUBLIC)
    make_folder(tmp_path / "folder")
    assert mode_of(tmp_path / "secret") == 0o600
    assert mode_of(tmp_path / "public") == 0o644
    assert mode_of(tmp_path / "folder") == 0o700


def test_a_file_that_others_could_read_becomes_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_atomic(path, b"new", SECRET)
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)


def test_a_reader_that_has_the_old_file_open_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old", PUBLIC)
    with path.open("rb") as reader:
        write_atomic(path, b"newer", PUBLIC)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"newer"


def test_of_files_that_belong_together_none_is_changed_when_one_cannot_be(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"old", SECRET)
    with pytest.raises(FileNotFoundError):
        write_together(
            [NewFile(tmp_path / "key", b"new", SECRET), NewFile(tmp_path / "missing" / "certificate", b"new", PUBLIC)]
        )
    assert (tmp_path / "key").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write_atomic(tmp_path / "key", b"old", SECRET)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "key", b"new", SECRET)
    assert (tmp_path / "key").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_no_secret_is_in_the_text_of_a_file_to_be(tmp_path: Path) -> None:
    assert "s3cret" not in repr(NewFile(tmp_path, b"s3cret", SECRET))


@as_root
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    make_folder(tmp_path / "agents")
    write_atomic(tmp_path / "agents" / "box-7.json", b"{}", SECRET)
    for path in (tmp_path / "agents", tmp_path / "agents" / "box-7.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)


def test_a_folder_is_found_writable_without_being_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may write everywhere
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "folder")


def test_two_that_make_one_folder_at_a_time_both_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.mkdir

    def mkdir(path: Path, mode: int = 0o777) -> None:
        real(path, mode)  # the other one, just before us
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    make_folder(tmp_path / "tokens")
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o700


def test_a_file_in_the_way_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "tokens")


def test_a_file_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "once"
    write_once(path, b"first", SECRET)
    write_once(path, b"second", SECRET)
    assert path.read_bytes() == b"first"
    assert mode_of(path) == SECRET
    assert [one.name for one in tmp_path.iterdir()] == ["once"]


def test_a_stamp_changes_with_the_file_and_is_zero_without_one(tmp_path: Path) -> None:
    file = tmp_path / "certificate"
    assert stamp([file]) == ((0, 0, 0),)
    write_atomic(file, b"first", PUBLIC)
    first = stamp([file])
    assert first == stamp([file]) != ((0, 0, 0),)
    write_atomic(file, b"other", PUBLIC)
    assert stamp([file]) != first
