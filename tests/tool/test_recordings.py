"""Recordings as `longline play` reads and times them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import command_result
from tunnel.core.wire.asciicast import Event, Header, resized
from tunnel.tool.playing import Pace, outputs, play
from tunnel.tool.recordings import RecordingUnusable, from_file, place_on_box

EVENTS = [Event(0.0, "o", "a"), resized(1.0, 100, 30), Event(2.0, "o", "b"), Event(62.0, "o", "c")]


class Clock:
    """Time that passes when somebody waits, or works."""

    def __init__(self, work_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.work_s = work_s
        self.written: list[tuple[float, str]] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def write(self, text: str) -> None:
        self.written.append((self.now_s - 100.0, text))
        self.now_s += self.work_s


@pytest.mark.parametrize(
    ("pace", "work_s", "seen"),
    [
        (Pace(), 0.0, [(0.0, "a"), (2.0, "b"), (62.0, "c")]),
        (Pace(speed=2.0), 0.0, [(0.0, "a"), (1.0, "b"), (31.0, "c")]),
        (Pace(idle_limit_s=0.5), 0.0, [(0.0, "a"), (1.0, "b"), (1.5, "c")]),
        # What takes time does not push back what comes later.
        (Pace(), 1.5, [(0.0, "a"), (2.0, "b"), (62.0, "c")]),
        (Pace(speed=1000.0), 1.5, [(0.0, "a"), (1.5, "b"), (3.0, "c")]),
    ],
)
def test_each_piece_comes_when_it_is_due(pace: Pace, work_s: float, seen: list[tuple[float, str]]) -> None:
    clock = Clock(work_s)
    play(iter(EVENTS), clock.write, pace, clock, clock.sleep)
    assert [(round(at_s, 6), text) for at_s, text in clock.written] == seen


def test_without_pauses_it_is_the_output_and_nothing_else() -> None:
    assert "".join(outputs(iter(EVENTS))) == "abc"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("box-7:20260301T101500Z-5f3a9c01", ("box-7", "20260301T101500Z-5f3a9c01")),
        ("box-7:session.cast", None),
        ("session.cast", None),
        ("C:20260301T101500Z", None),
    ],
)
def test_what_is_on_a_box(text: str, found: tuple[str, str] | None) -> None:
    assert place_on_box(text) == found


def test_a_file_is_played_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "session.cast"
    header = Header(columns=80, rows=24, began=0, title="t")
    path.write_bytes(header.line() + b"".join(event.line() for event in EVENTS) + b'[70.0, "o", "cu')
    for words in (["--dump"], ["--speed", "1000"]):
        done = command_result("longline", "play", str(path), *words)
        assert (done.returncode, done.stdout) == (0, "abc")


@pytest.mark.parametrize("content", [b"", b"no recording\n", b'{"version": 1}\n'])
def test_what_is_no_recording_is_told_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.cast"
    path.write_bytes(content)
    with pytest.raises(RecordingUnusable, match="is no header of an asciicast"), from_file(path):
        pass
    done = command_result("longline", "play", str(path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "LL1070" in done.stderr
    missing = command_result("longline", "play", str(tmp_path / "none.cast"))
    assert (missing.returncode, "LL1070" in missing.stderr) == (1, True)
