"""When lines say that they were written, and finding a time in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.hostkubelet import line_times
from edge_agent.hostkubelet.line_times import LineTimes

NEAR = datetime(2026, 2, 1, 12, tzinfo=UTC)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A box two hours ahead of UTC."""
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "line",
    [
        b"2026-01-31T12:00:00Z started",
        b"2026-01-31 12:00:00+00:00 started",
        b"2026-01-31 12:00:00.000 UTC [42] LOG:  started",
        b"[2026-01-31T14:00:00+0200] started",
        b"2026-01-31 14:00:00,000 INFO started",
        b"2026/01/31 14:00:00 [error] 12#12: started",
        b'time="2026-01-31T12:00:00Z" level=info',
        b'{"level":"info","msg":"a long message that comes before the time of its line","time":"2026-01-31T12:00:00Z"}',
        b'192.0.2.1 - - [31/Jan/2026:14:00:00 +0200] "GET / HTTP/1.1" 200 5',
        b"Jan 31 14:00:00 box sshd[1]: started",
        b"<13>Jan 31 14:00:00 box sshd[1]: started",
    ],
)
def test_common_forms(line: bytes) -> None:
    assert LineTimes(NEAR).of(line) == NOON


@pytest.mark.parametrize(
    "line",
    [
        b"", b"started", b"  at java.lang.Thread", b"2026-01-31", b"2026-13-31 12:00:00", b"12:00:00 up",
        b"Feb 30 12:00:00",
        b"the certificate of example.org, which is valid from 2020-01-01 to 2026-01-31 12:00:00",
    ],
)  # fmt: skip
def test_lines_that_tell_none(line: bytes) -> None:
    assert LineTimes(NEAR).of(line) is None


def test_syslogs_year_is_the_latest_that_can_be() -> None:
    times = LineTimes(datetime(2026, 1, 2, tzinfo=UTC))
    assert times.of(b"Dec 31 02:00:00 box x") == datetime(2025, 12, 31, tzinfo=UTC)
    assert times.of(b"Jan  1 02:00:00 box x") == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_files_own_time_tells_the_zone_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"2026-01-31 11:00:00 first\n2026-01-31 12:00:00 last\n")  # in UTC, on a box two hours ahead
    fd = os.open(path, os.O_RDONLY)
    try:
        found = LineTimes.of_file(fd, path.stat().st_size, NOON + timedelta(seconds=3))
        other = LineTimes.of_file(fd, path.stat().st_size, NOON + timedelta(minutes=37))
    finally:
        os.close(fd)
    assert found.of(b"2026-01-31 12:00:00 x") == NOON
    assert found.of(b"2026-01-31 12:00:00Z x") == NOON
    assert other.of(b"2026-01-31 14:00:00 x") == NOON


@pytest.mark.parametrize("lines", [3, 20_000])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.5, 0.99])
def test_where_a_time_begins(tmp_path: Path, lines: int, after: float) -> None:
    path = tmp_path / "app.log"
    moments = [NOON + timedelta(seconds=number) for number in range(lines)]
    path.write_bytes(b"".join(f"{moment:%Y-%m-%dT%H:%M:%SZ} line\n  and more\n".encode() for moment in moments))
    size = path.stat().st_size
    fd = os.open(path, os.O_RDONLY)
    try:
        times = LineTimes(moments[-1])
        wanted = moments[int(lines * after)]
        start = times.offset_since(fd, size, wanted)
        assert os.pread(fd, 20, start) == f"{wanted:%Y-%m-%dT%H:%M:%SZ}".encode()
        assert times.offset_since(fd, size, moments[-1] + timedelta(seconds=1)) == size
    finally:
        os.close(fd)


def test_of_a_file_without_times_no_more_than_a_kubelets_log_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_times, "UNTIMED_BYTES", 95)
    path = tmp_path / "app.log"
    path.write_bytes(b"ten bytes\n" * 20)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert LineTimes(NOON).offset_since(fd, 200, NOON - timedelta(hours=1)) == 110
        assert LineTimes(NOON).offset_since(fd, 200, NOON + timedelta(hours=1)) == 200
    finally:
        os.close(fd)
