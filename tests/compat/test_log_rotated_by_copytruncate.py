"""Lines that were written right before logrotate's copytruncate were lost: 26 of 600, looking four times a second.

The yardstick is GNU `tail -F` on the same file at the same time.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.boxes import ME, OneBox, one_box
from tests.support.tunnel import BOX
from tests.support.waits import Deadline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
LINES = 600
EVERY_S = 0.005
ROTATIONS = 6

Rotate = Callable[[Path, int], None]


def by_copytruncate(path: Path, number: int) -> None:
    """As logrotate does it: what is written between its two steps is lost for everybody who comes later."""
    shutil.copy2(path, path.with_name(f"{path.name}.{number}"))
    with path.open("r+b") as file:
        file.truncate(0)


def by_rename(path: Path, number: int) -> None:
    path.rename(path.with_name(f"{path.name}.{number}"))
    path.touch()


def by_removal(path: Path, number: int) -> None:
    del number
    path.unlink()
    path.touch()


def by_link(path: Path, number: int) -> None:
    """`path` is a link to the newest of several files, as of a log with a date in its name."""
    newest = path.with_name(f"{path.name}-{number}")
    newest.touch()
    new_link = path.with_name("new-link")
    new_link.symlink_to(newest)
    new_link.rename(path)


class Reader:
    """Something that prints lines, read in a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, line: str, within_s: float = 10) -> None:
        deadline = Deadline(within_s)
        while line not in self.lines:
            assert not deadline.passed(), f"{line} is not there: {self.lines[-3:]}"
            time.sleep(0.01)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))


@contextlib.contextmanager
def tail(path: Path) -> Iterator[Reader]:
    argv = ["tail", "-n", "0", "-F", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Reader(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OneBox, Path]]:
    folder: Path = tmp_path_factory.mktemp("rotated")
    names = [rotate.__name__ for rotate in (by_copytruncate, by_rename, by_removal)]
    files = [folder / name / "app.log" for name in [*names, by_link.__name__]]
    for number, file in enumerate(files):
        file.parent.mkdir()
        if number < len(names):
            file.touch()
        else:
            (file.parent / "app.log-0").touch()
            file.symlink_to(file.parent / "app.log-0")
    with one_box({"exec": True, "user": ME, "files": [str(file) for file in files]}) as box:
        deadline = Deadline(10)
        while "running" not in box.state("app.log-4"):
            assert not deadline.passed(), "the box does not say what it offers"
            time.sleep(0.05)
        yield box, folder


@pytest.mark.parametrize(
    ("container", "rotate"),
    [("app.log", by_copytruncate), ("app.log-2", by_rename), ("app.log-3", by_removal), ("app.log-4", by_link)],
)
def test_nothing_is_lost_that_tail_keeps(made: tuple[OneBox, Path], container: str, rotate: Rotate) -> None:
    box, folder = made
    path = folder / rotate.__name__ / "app.log"

    def write(line: str) -> None:
        with path.open("a") as file:  # anew each time, as a writer that was told of the rotation
            file.write(f"{line}\n")

    with tail(path) as yardstick, box.follow("logs", "-f", BOX, "-c", container, "--tail=0") as following:
        ours = Reader(following)
        deadline = Deadline(10)
        while "ready" not in ours.lines or "ready" not in yardstick.lines:
            assert not deadline.passed(), "nobody follows"
            write("ready")
            time.sleep(0.05)
        for number in range(LINES):
            write(f"line {number}")
            if number % (LINES // ROTATIONS) == LINES // ROTATIONS // 2:
                if rotate is not by_copytruncate:  # what nobody has read yet is gone with the file
                    ours.wait_for(f"line {number}")
                    yardstick.wait_for(f"line {number}")
                rotate(path, number)
            time.sleep(EVERY_S)
        ours.wait_for(f"line {LINES - 1}")
        yardstick.wait_for(f"line {LINES - 1}")
    kept = [line for line in yardstick.lines if line != "ready"]
    got = [line for line in ours.lines if line != "ready"]
    assert [line for line in kept if line not in set(got)] == []
    assert got == [f"line {number}" for number in range(LINES)], "lost though nobody wrote while it was rotated"
