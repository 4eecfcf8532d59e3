"""Copies against a shell here in the box's place, dash's and busybox's, and against boxes that lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tunnel.tool import remote_files
from tunnel.tool.api import Api
from tunnel.tool.copy_progress import CopyProgress
from tunnel.tool.copying import CopyFailed, download, upload
from tunnel.tool.half_files import CopyStopped
from tunnel.tool.remote_exec import Channel, Output, Source
from tunnel.tool.remote_files import Kind, RemoteFailed, RemoteFile, RemoteFiles, _parsed

TOOLS = ("cat", "chmod", "find", "head", "ls", "mkdir", "mv", "rm", "sh", "sha256sum", "wc")


@pytest.fixture(params=["dash", "busybox", "busybox without sha256sum"])
def box(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteFiles:
    """A box whose commands run here, with the tools that it has."""
    program = shutil.which(request.param.partition(" ")[0])
    if program is None:
        pytest.skip(f"no {request.param} here")
    path = os.environ["PATH"]
    if "busybox" in request.param:
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in TOOLS:
            if name not in request.param:
                (tools / name).symlink_to(program)
        path = str(tools)
    shell = [program] if request.param == "dash" else [program, "sh"]

    def run_command(
        _api: Api, _box: str, command: Sequence[str], output: Output, *, source: Source | None = None
    ) -> int:
        said = iter(source.read, b"") if source is not None else iter(())
        with subprocess.Popen(
            [*shell, *command[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=tmp_path, env={"PATH": path},
        ) as process:  # fmt: skip
            out, err = process.communicate(b"".join(filter(None, said)))
        if out:
            output(Channel.STDOUT, out)
        if err:
            output(Channel.STDERR, err)
        return process.returncode

    monkeypatch.setattr(remote_files, "run_command", run_command)
    return RemoteFiles(None, "box-7")  # type: ignore[arg-type]  # nothing is asked of an API


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def quiet() -> CopyProgress:
    return CopyProgress("test", hidden=True)


def test_there_and_back(box: RemoteFiles, here: Path, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (here / "one").write_bytes(content)
    (here / "one").chmod(0o751)
    away = tmp_path / "away file"
    upload(box, here / "one", str(away), quiet())
    assert away.read_bytes() == content
    assert away.stat().st_mode & 0o777 == 0o751
    download(box, str(away), here / "two", quiet())
    assert (here / "two").read_bytes() == content
    assert (here / "two").stat().st_mode & 0o777 == 0o751
    assert sorted(path.name for path in here.iterdir()) == ["one", "two"]


def test_a_folder_there_and_back(box: RemoteFiles, here: Path, tmp_path: Path) -> None:
    tree = here / "tree"
    for name in ("a", "b c/d\ne", "b c/-n", "b c/$(touch x)", "b c/*"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(os.urandom(1000))
    (tree / "b c").chmod(0o710)
    (tree / "none").mkdir()
    (tree / "link").symlink_to("/etc")
    result = upload(box, tree, str(tmp_path / "away"), quiet())
    assert (result.files, result.bytes) == (5, 5000)
    assert list(result.skipped) == [str(tree / "link")]
    back = download(box, str(tmp_path / "away"), here / "back", quiet())
    assert (back.files, back.bytes) == (5, 5000)
    for path in tree.rglob("*"):
        copy = here / "back" / path.relative_to(tree)
        assert path.is_symlink() or copy.stat().st_mode == path.stat().st_mode
        assert not path.is_file() or copy.read_bytes() == path.read_bytes()
    assert not (tmp_path / "x").exists()


def test_names_that_look_like_options(box: RemoteFiles, here: Path, tmp_path: Path) -> None:
    (here / "one").write_text("x")
    upload(box, here / "one", "-rf", quiet())
    assert (tmp_path / "-rf").read_text() == "x"
    download(box, "-rf", here / "two", quiet())
    assert (here / "two").read_text() == "x"


def test_a_file_that_shrank_is_not_taken(
    box: RemoteFiles, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives is not what was measured: nothing appears under the name."""
    (here / "one").write_bytes(b"x" * 1000)
    monkeypatch.setattr("tunnel.tool.copying._chunks", lambda *_: iter([b"x" * 10]))
    (tmp_path / "away").write_text("before")
    with pytest.raises(CopyFailed, match="one was not copied: box-7: 10 of 1000 bytes arrived"):
        upload(box, here / "one", str(tmp_path / "away"), quiet())
    assert (tmp_path / "away").read_text() == "before"
    assert not list(tmp_path.glob(".away*"))


def test_bytes_that_changed_on_the_way_are_seen(
    box: RemoteFiles, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "without" in request.node.name:
        pytest.skip("only the size can be checked there")
    (here / "one").write_bytes(b"x" * 1000)
    monkeypatch.setattr("tunnel.tool.copying._chunks", lambda *_: iter([b"y" * 1000]))
    with pytest.raises(CopyFailed, match="the checksum on the box is another one"):
        upload(box, here / "one", str(tmp_path / "away"), quiet())
    assert not (tmp_path / "away").exists()


class Liar(RemoteFiles):
    """A box that lists what it likes, and sends what it likes."""

    def __init__(self, files: list[RemoteFile], content: bytes = b"bytes", sha256: str = "") -> None:
        super().__init__(None, "liar")  # type: ignore[arg-type]  # nothing is asked of an API
        self.files = files
        self.content = content
        self.sha256 = sha256

    def probe(self, path: str) -> RemoteFile:
        return RemoteFile(path, Kind.FOLDER) if path != "file" else RemoteFile(path, Kind.FILE, 0o644, 5)

    def listing(self, folder: str) -> list[RemoteFile]:
        return self.files

    def download(self, path: str, size: int, write: object) -> str:
        write(self.content)  # type: ignore[operator]
        return self.sha256


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "a//b", "", "..", "a\0b", "./x"])
def test_a_hostile_name_leads_nowhere(here: Path, name: str) -> None:
    liar = Liar([RemoteFile("fine", Kind.FILE, 0o644, 5), RemoteFile(name, Kind.FILE, 0o644, 5)])
    with pytest.raises(CopyFailed, match="which cannot be in a folder here"):
        download(liar, "dir", here / "copied", quiet())
    assert list(here.iterdir()) == []


def test_a_link_that_waits_here_is_not_followed(here: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("before")
    copied = here / "copied"
    copied.mkdir()
    (copied / "sub").symlink_to(outside)
    liar = Liar([RemoteFile("sub", Kind.FOLDER, 0o755), RemoteFile("sub/file", Kind.FILE, 0o644, 5)])
    with pytest.raises(CopyFailed, match="through a link"):
        download(liar, "copied", here, quiet())
    (copied / "sub").unlink()
    (copied / "leaf").symlink_to(outside / "file")
    download(Liar([RemoteFile("leaf", Kind.FILE, 0o644, 5)]), "copied", here, quiet())
    assert (outside / "file").read_text() == "before"
    assert (copied / "leaf").read_text() == "bytes"
    assert not (copied / "leaf").is_symlink()


@pytest.mark.parametrize(
    ("content", "sha256", "says"),
    [
        (b"byte", "", "4 of 5 bytes arrived"),
        (b"bytes and more", "", "more than its 5 bytes arrived"),
        (b"bytes", "0" * 64, "changed while it was"),
    ],
)
def test_what_arrives_otherwise_than_announced_is_not_kept(here: Path, content: bytes, sha256: str, says: str) -> None:
    (here / "kept").write_text("before")
    with pytest.raises(CopyFailed, match=says):
        download(Liar([], content, sha256), "file", here / "kept", quiet())
    assert [path.name for path in here.iterdir()] == ["kept"]
    assert (here / "kept").read_text() == "before"


def test_one_failure_stops_the_others(here: Path) -> None:
    release = threading.Event()

    class Slow(Liar):
        def download(self, path: str, size: int, write: object) -> str:
            if path.endswith("bad"):
                raise RemoteFailed("no")
            release.wait(10)
            return super().download(path, size, write)

    files = [RemoteFile(name, Kind.FILE, 0o644, 5) for name in ("bad", *map(str, range(50)))]
    progress = quiet()
    threading.Timer(0.1, release.set).start()
    with pytest.raises(CopyFailed, match="bad was not copied: no"):
        download(Slow(files), "dir", here / "copied", progress)
    assert len(list((here / "copied").iterdir())) < 50
    with pytest.raises(CopyStopped):
        progress.add(1)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-rwsr-x--t 1 0 0 123 Jan 1 00:00 name", RemoteFile("p", Kind.FILE, 0o751, 123)),
        ("drwxr-xr-x 2 0 0 4096 Jan", RemoteFile("p", Kind.FOLDER, 0o755)),
        ("lrwxrwxrwx. 1 0 0 3 x", RemoteFile("p", Kind.LINK, 0o777)),
        ("prw-r--r-- 1 0 0 0 x", RemoteFile("p", Kind.OTHER, 0o644)),
        ("rubbish", RemoteFile("p", Kind.OTHER)),
        ("-rw-r--r-- 1", RemoteFile("p", Kind.OTHER)),
    ],
)
def test_lines_of_ls(line: str, found: RemoteFile) -> None:
    assert _parsed(line, "p") == found


@pytest.fixture(autouse=True)
def _no_stray_parts(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.rglob("*.part"))
