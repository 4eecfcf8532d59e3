"""The queue of log lines before a descriptor that may be slow, stuck or broken; over real pipes and files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waits import Deadline
from tunnel.aio.process import log_sink
from tunnel.aio.process.log_sink import MAX_UNFINISHED_CHARS, LogSink, SinkStream

PIPE_BYTES = 4096
LINE = b"x" * 99 + b"\n"


def tell(lost: int) -> bytes:
    return f"lost {lost}\n".encode()


@contextmanager
def sink_to(descriptor: int, max_bytes: int = 1024 * 1024) -> Iterator[LogSink]:
    sink = LogSink(descriptor, tell, max_bytes)
    try:
        yield sink
    finally:
        sink.close(0.1)


@contextmanager
def small_pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that holds a page."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        yield read_end, write_end
    finally:
        for end in (read_end, write_end):
            with contextlib.suppress(OSError):  # the test closed it
                os.close(end)


def until(condition: object, within_s: float = 5.0) -> None:
    deadline = Deadline(within_s)
    while not condition():  # type: ignore[operator]
        assert not deadline.passed()
        time.sleep(0.005)


def read_until(descriptor: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        more = os.read(descriptor, 65536)
        assert more
        data += more
    return data


def test_lines_arrive_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, sink_to(file.fileno()) as sink:
        for number in range(1000):
            sink.write(b"%d\n" % number)
        assert sink.flush(5)
    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(1000))
    assert sink.lost == 0


def test_a_reader_that_stops_costs_the_oldest_lines_and_is_told_where_they_are_missing() -> None:
    with small_pipe() as (read_end, write_end), sink_to(write_end, max_bytes=10_000) as sink:
        until(lambda: sink._idle)
        sink.write(b"a" * 2 * PIPE_BYTES + b"\n")  # the thread is stuck in this one
        until(lambda: not sink._lines)
        for number in range(200):
            sink.write(b"%099d\n" % number)
        assert sink.lost == 100
        assert not sink.flush(0.01)
        head, _, rest = read_until(read_end, b"%099d\n" % 199).partition(b"\n")
        assert len(head) == 2 * PIPE_BYTES
        assert rest == b"lost 100\n" + b"".join(b"%099d\n" % number for number in range(100, 200))
        sink.write(b"after\n")
        assert read_until(read_end, b"after\n") == b"after\n"  # told once


def test_a_writer_never_waits_for_a_reader() -> None:
    with small_pipe() as (_, write_end), sink_to(write_end, max_bytes=10_000) as sink:
        began_s = time.perf_counter()
        for _ in range(10_000):
            sink.write(LINE)
        assert time.perf_counter() - began_s < 5
        assert sink._bytes <= 10_000


def test_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sink, "RETRY_S", 0.05)
    with small_pipe() as (read_end, write_end), sink_to(write_end) as sink:
        os.close(read_end)
        sink.write(LINE)
        sink.write(LINE)
        until(lambda: sink.lost == 2)


def test_a_full_disk_is_told_when_there_is_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(log_sink, "RETRY_S", 0.05)
    full, write, path = True, os.write, tmp_path / "log"

    def half_a_line(descriptor: int, data: bytes) -> int:
        if not full:
            return write(descriptor, data)
        if len(data) > 10:
            return write(descriptor, data[:10])  # what was left of the disk
        raise OSError(errno.ENOSPC, "no space left on device")

    with path.open("wb") as file, sink_to(file.fileno()) as sink:
        monkeypatch.setattr(os, "write", half_a_line)
        sink.write(b"0123456789abcde\n")
        until(lambda: sink.lost == 1)
        full = False
        sink.write(b"more\n")
        assert sink.flush(5)
    assert path.read_bytes() == b"0123456789\nlost 1\nmore\n"


def test_a_descriptor_that_somebody_made_non_blocking() -> None:
    with small_pipe() as (read_end, write_end), sink_to(write_end) as sink:
        os.set_blocking(write_end, False)
        for _ in range(1000):
            sink.write(LINE)
        sink.write(b"end\n")
        assert read_until(read_end, b"end\n") == LINE * 1000 + b"end\n"
        assert sink.lost == 0


def test_the_descriptor_stays_blocking_for_whoever_shares_it() -> None:
    with small_pipe() as (_, write_end), sink_to(write_end) as sink:
        sink.write(LINE)
        assert sink.flush(5)
        assert os.get_blocking(write_end)


def test_what_is_printed_comes_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, sink_to(file.fileno()) as sink:
        stream = SinkStream(sink, terminal=False)
        print("half", end="", file=stream)
        sink.write(json.dumps({"event": "x"}).encode() + b"\n")
        print(" and half", "\udcff", file=stream)
        print("no end", end="", file=stream, flush=True)
        assert sink.flush(5)
        assert not stream.isatty()
    assert path.read_text() == '{"event": "x"}\nhalf and half \\udcff\nno end'


def test_text_that_never_ends_its_line_is_not_kept_for_long(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, sink_to(file.fileno()) as sink:
        stream = SinkStream(sink, terminal=False)
        for _ in range(MAX_UNFINISHED_CHARS // 1024 + 1):
            stream.write("x" * 1024)
        assert sink.flush(5)
    assert path.stat().st_size > MAX_UNFINISHED_CHARS
