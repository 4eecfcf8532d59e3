"""Reading a log file from its last lines on, across rotations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.hostkubelet import followed_file
from edge_agent.hostkubelet.followed_file import FollowedFile, tail_offset
from edge_agent.hostkubelet.log_file import LogFile


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
        patch.setattr(followed_file, "READ_BYTES", block)
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


# ------------------------------------------------------------------------------------------------- what was copied away


def rotate_by_copy(path: Path, copy: Path, late: bytes = b"") -> None:
    """As logrotate's copytruncate does it, `late` having been written since anybody looked."""
    append(path, late)
    shutil.copy(path, copy)
    path.write_bytes(b"")


def test_what_was_written_right_before_the_file_was_emptied_is_read_from_its_copy(
    followed: FollowedFile, path: Path
) -> None:
    followed.open(None)
    assert drain(followed) == b"one\ntwo\nthree\n"
    rotate_by_copy(path, path.with_name("app.log.1"), late=b"four\nfive\n")
    append(path, b"six\n")
    assert drain(followed) == b"four\nfive\nsix\n"
    rotate_by_copy(path, path.with_name("app.log-20260131"), late=b"seven\n")
    assert drain(followed) == b"seven\n"
    append(path, b"eight\n")
    assert drain(followed) == b"eight\n"


def test_no_other_file_is_taken_for_the_copy(followed: FollowedFile, path: Path) -> None:
    followed.open(None)
    drain(followed)
    path.with_name("app.log.1").write_bytes(b"another, and a long one\n")
    path.with_name("app.log.2").symlink_to("/etc/passwd")
    (path.parent / "other.log").write_bytes(b"one\ntwo\nthree\nfour\n")
    path.write_bytes(b"")
    append(path, b"new\n")
    assert drain(followed) == b"new\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_copy_of_somebody_elses_is_not_read(followed: FollowedFile, path: Path) -> None:
    followed.open(None)
    drain(followed)
    copy = path.with_name("app.log.1")
    copy.write_bytes(b"one\ntwo\nthree\nof another\n")
    os.chown(copy, 65534, 65534)
    path.write_bytes(b"")
    assert drain(followed) == b""


def test_an_old_rotation_with_the_same_lines_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    (tmp_path / "app.log.1").write_bytes(b"tick\n" * 50)
    path.write_bytes(b"tick\n" * 40)
    followed = FollowedFile(LogFile(path))
    followed.open(None)
    assert drain(followed) == b"tick\n" * 40
    until = (tmp_path / "app.log.1").stat().st_ctime_ns
    while path.stat().st_ctime_ns <= until:
        append(path, b"tick\n")
    drain(followed)
    path.write_bytes(b"")
    assert drain(followed) == b""
    followed.close()


def test_a_rotation_to_a_link_is_not_followed(followed: FollowedFile, path: Path) -> None:
    followed.open(0)
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert drain(followed) == b""


@pytest.mark.parametrize("hole", [100_000, 1 << 40])
def test_behind_the_hole_of_a_file_that_was_emptied_under_its_writer(path: Path, hole: int) -> None:
    lines = b"2026-01-31T12:00:00Z one\n2026-01-31T13:00:00Z two\n"
    with path.open("wb") as file:
        file.seek(hole + 1)
        file.write(lines)
    file_log = FollowedFile(LogFile(path))
    try:
        assert file_log.open(tail_lines=1000) == len(lines)
        assert drain(file_log) == lines
        file_log.close()
        assert file_log.open(since=datetime(2026, 1, 31, 11, tzinfo=UTC)) == len(lines)
        file_log.close()
        assert file_log.open(since=datetime(2026, 1, 31, 12, 30, tzinfo=UTC)) == len(lines) // 2
    finally:
        file_log.close()
