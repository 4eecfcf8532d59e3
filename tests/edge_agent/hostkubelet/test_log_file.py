"""Reading a log file from its last lines on, across rotations, and never another file than the configured one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.hostkubelet import log_file
from edge_agent.hostkubelet.log_file import FollowedFile, LogFile, tail_offset
from edge_agent.hostkubelet.status import KubeletError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\ntwo\nthree\n")
    return path


@pytest.fixture
def followed(path: Path) -> Iterator[FollowedFile]:
    file = FollowedFile(LogFile(path))
    yield file
    file.close()


def drain(file: FollowedFile) -> bytes:
    data = b""
    while part := file.read():
        data += part
    return data


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


# ---------------------------------------------------------------------------------------------------------------- tail


@given(
    st.lists(st.sampled_from([b"", b"a", b"bb" * 5, b"c" * 40]), max_size=30),
    st.booleans(),
    st.integers(0, 35),
    st.integers(1, 64),
)
def test_the_last_lines(lines: list[bytes], ended: bool, wanted: int, block: int) -> None:
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    fd = os.memfd_create("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_file, "READ_BYTES", block)
        try:
            os.write(fd, data)
            tail = data[tail_offset(fd, len(data), wanted) :]
        finally:
            os.close(fd)
    assert tail == b"".join(data.splitlines(keepends=True)[-wanted:] if wanted else [])


def test_the_tail_of_a_huge_file_reads_its_end_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    read = 0
    pread = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        nonlocal read
        read += length
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counting)
    file_at_end = FollowedFile(LogFile(path))
    assert file_at_end.open(1) == 5
    assert drain(file_at_end) == b"last\n"
    file_at_end.close()
    assert read < 1 << 18


# -------------------------------------------------------------------------------------------------------------- follow


def test_what_is_appended_follows_even_in_parts_of_lines(followed: FollowedFile, path: Path) -> None:
    assert followed.open(1) == 6
    assert drain(followed) == b"three\n"
    for part in (b"fo", b"ur\nfi", b"ve\n"):
        append(path, part)
        assert drain(followed) == part


def test_rotation_by_rename_loses_nothing(followed: FollowedFile, path: Path) -> None:
    followed.open(0)
    append(path, b"before\n")
    path.rename(path.with_suffix(".1"))
    assert drain(followed) == b"before\n"
    path.touch()
    append(path.with_suffix(".1"), b"the writer still has the old one\n")
    assert drain(followed) == b"the writer still has the old one\n"
    append(path.with_suffix(".1"), b"last of the old\n")
    append(path, b"first of the new\n")
    assert drain(followed) == b"last of the old\nfirst of the new\n"
    append(path, b"second\n")
    assert drain(followed) == b"second\n"


def test_a_file_that_is_deleted_and_comes_back(followed: FollowedFile, path: Path) -> None:
    followed.open(0)
    path.unlink()
    assert drain(followed) == b""
    path.write_bytes(b"new\n")
    assert drain(followed) == b"new\n"


def test_truncation(followed: FollowedFile, path: Path) -> None:
    followed.open(None)
    assert drain(followed) == b"one\ntwo\nthree\n"
    path.write_bytes(b"")
    assert drain(followed) == b""
    append(path, b"again\n")
    assert drain(followed) == b"again\n"


def test_truncation_between_two_looks_that_grew_beyond_the_old_size(followed: FollowedFile, path: Path) -> None:
    followed.open(None)
    drain(followed)
    rewritten = b"a fresh start that is longer than what was there\n"
    path.write_bytes(rewritten)
    assert drain(followed) == rewritten


# ------------------------------------------------------------------------------------------------------- which file


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KubeletError, match="does not exist") as raised:
        LogFile(tmp_path / "none").open()
    assert raised.value.status == 404
    assert not LogFile(tmp_path / "none").exists()


def test_a_link_that_the_owner_configured_is_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.log"
    link.symlink_to(path)
    fd = LogFile(link).open()
    assert os.read(fd, 3) == b"one"
    os.close(fd)


def test_a_file_that_became_a_link_is_refused(path: Path) -> None:
    file = LogFile(path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(KubeletError) as raised:
        file.open()
    assert raised.value.status == 403


def test_a_folder_that_became_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "passwd").write_text("log")
    file = LogFile(tmp_path / "logs" / "passwd")
    (tmp_path / "logs").rename(tmp_path / "old")
    (tmp_path / "logs").symlink_to("/etc")
    with pytest.raises(KubeletError, match="not the regular file any more") as raised:
        file.open()
    assert raised.value.status == 403


def test_a_rotation_to_a_link_is_not_followed(followed: FollowedFile, path: Path) -> None:
    followed.open(0)
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert drain(followed) == b""


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = {"fifo": tmp_path / "fifo", "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(KubeletError) as raised:
        LogFile(path).open()
    assert raised.value.status == 403


def test_one_that_was_given_up_before_it_was_opened(followed: FollowedFile) -> None:
    followed.close()
    assert followed.open(None) == 0
    assert followed.read() == b""
