"""Which file a configured name leads to, and never to another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.hostkubelet.log_file import FileFault, LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\ntwo\nthree\n")
    return path


def pinned(path: Path) -> LogFile:
    """As when the agent has started."""
    file = LogFile(path)
    file.pin()
    return file


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileFault, match="does not exist") as raised:
        LogFile(tmp_path / "none").open()
    assert raised.value.status == 404
    fault = LogFile(tmp_path / "none").look()
    assert fault is not None
    assert fault.reason == "FileNotFound"


def test_a_link_that_the_owner_configured_is_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.log"
    link.symlink_to(path)
    fd = LogFile(link).open()
    assert os.read(fd, 3) == b"one"
    os.close(fd)


def test_a_file_that_became_a_link_is_refused(path: Path) -> None:
    file = pinned(path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(FileFault) as raised:
        file.open()
    assert raised.value.status == 403


def test_a_folder_that_became_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "passwd").write_text("log")
    file = pinned(tmp_path / "logs" / "passwd")
    (tmp_path / "logs").rename(tmp_path / "old")
    (tmp_path / "logs").symlink_to("/etc")
    with pytest.raises(FileFault, match="not the file any more") as raised:
        file.open()
    assert raised.value.status == 403


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = {"fifo": tmp_path / "fifo", "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(FileFault) as raised:
        LogFile(path).open()
    assert raised.value.status == 403


def test_a_link_that_its_owner_switches_is_followed(path: Path, tmp_path: Path) -> None:
    link, next_one = tmp_path / "current", tmp_path / "app-2.log"
    link.symlink_to(path)
    file = pinned(link)
    next_one.write_bytes(b"second\n")
    link.unlink()
    link.symlink_to(next_one)
    assert file.identity() == (next_one.stat().st_dev, next_one.stat().st_ino, 7)
    fd = file.open()
    assert os.read(fd, 100) == b"second\n"
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")
def test_a_link_that_somebody_else_switches_to_a_file_of_roots_is_refused(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(path)
    file = pinned(link)
    link.unlink()
    link.symlink_to("/etc/passwd")
    os.lchown(link, 65534, 65534)
    with pytest.raises(FileFault) as raised:
        file.open()
    assert raised.value.reason == "NotTheFile"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")
def test_a_link_of_roots_through_a_link_of_somebody_elses_is_refused(path: Path, tmp_path: Path) -> None:
    link, theirs = tmp_path / "current", tmp_path / "theirs"
    link.symlink_to(path)
    file = pinned(link)
    link.unlink()
    theirs.symlink_to("/etc/passwd")
    os.lchown(theirs, 65534, 65534)
    link.symlink_to(theirs)
    with pytest.raises(FileFault):
        file.open()
