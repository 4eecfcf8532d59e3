"""The audit log over real files, pipes and devices: what goes wrong with them, and that nothing is lost in silence."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.waits import Deadline
from tunnel.aio.operate import audit
from tunnel.aio.operate.audit import AuditLog, AuditUnavailable, OnFailure

Record = dict[str, Any]


@contextmanager
def log_to(path: Path | str, on_failure: OnFailure = "alarm", max_bytes: int = 1024 * 1024) -> Iterator[AuditLog]:
    log = AuditLog(str(path), on_failure, max_bytes)
    try:
        yield log
    finally:
        log.close(0.1)


def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    deadline = Deadline(within_s)
    while not condition():
        assert not deadline.passed()
        time.sleep(0.005)


def records(*paths: Path) -> list[Record]:
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def numbers(found: list[Record]) -> list[int]:
    return [record["seq"] for record in found]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "RETRY_S", 0.02)
    monkeypatch.setattr(audit, "STUCK_S", 0.3)


def test_records_are_lines_with_a_number_and_a_time(tmp_path: Path) -> None:
    began = datetime.now(UTC)
    with log_to(tmp_path / "audit.log") as log:
        log.record("open", user="ann", target="10.0.0.1:22")
        log.record("end", text="\udcff", huge=1 << 80, path=tmp_path)
        assert log.flush(5)
        first, second = records(tmp_path / "audit.log")
    at = datetime.fromisoformat(first.pop("time"))
    assert began <= at <= datetime.now(UTC)
    assert first == {"seq": 1, "event": "open", "user": "ann", "target": "10.0.0.1:22"}
    assert (second["seq"], second["text"], second["huge"], second["path"]) == (2, "\udcff", 1 << 80, str(tmp_path))
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_standard_output_is_the_default() -> None:
    code = "from tunnel.aio.operate.audit import AuditLog; log = AuditLog(); log.record('x'); log.close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout)["event"] == "x"


@pytest.mark.parametrize("how", ["rename and create", "rename", "copytruncate", "reopen"])
def test_a_rotation_loses_no_record(tmp_path: Path, how: str) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    with log_to(path) as log:
        for number in range(200):
            log.record("open", number=number)
            if number == 100:
                assert log.flush(5)  # copytruncate itself loses what is written while it copies
                _rotate(how, path, old, log)
        assert log.flush(5)
    assert [record["number"] for record in records(old, path)] == list(range(200))
    assert len(records(path)) == 99


def _rotate(how: str, path: Path, old: Path, log: AuditLog) -> None:
    if how == "copytruncate":
        shutil.copy(path, old)
        os.truncate(path, 0)
        return
    path.rename(old)
    if how == "rename and create":
        path.touch()
    if how == "reopen":
        log.reopen()
        until(path.exists)  # before there is anything to write


def test_a_full_disk_is_a_fault_and_costs_no_record(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.symlink_to("/dev/full")
    with log_to(path, "refuse") as log:
        log.admit()
        log.record("open")
        until(lambda: log.fault)
        assert log.fault == f"the audit log {path} cannot be written: No space left on device"
        with pytest.raises(AuditUnavailable, match="No space left on device"):
            log.admit()
        path.unlink()
        log.record("end")
        assert log.flush(5)
        log.admit()
    assert [record["event"] for record in records(path)] == ["open", "end"]
    assert log.lost == 0


def test_a_line_that_the_disk_took_half_is_finished_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log_to(path) as log:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (250, limits[1]))
            for _ in range(3):
                log.record("open", text="x" * 100)
            until(lambda: log.fault)
            assert path.stat().st_size == 250
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert log.flush(5)
    assert numbers(records(path)) == [1, 2, 3]


def test_with_alarm_everything_is_let_in(tmp_path: Path) -> None:
    with log_to("/dev/full") as log:
        log.record("open")
        until(lambda: log.fault)
        log.admit()


def test_a_folder_that_is_missing_is_known_before_there_is_a_record(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "audit.log"
    with log_to(path, "refuse") as log:
        until(lambda: log.fault)
        with pytest.raises(AuditUnavailable, match="No such file or directory"):
            log.admit()
        path.parent.mkdir()
        until(lambda: not log.fault)
        log.admit()


def test_a_reader_that_stopped_is_a_fault_and_what_is_lost_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with log_to(path, "refuse", max_bytes=64 * 1024) as log:
            began_s = time.monotonic()
            for _ in range(2000):
                log.record("open", text="x" * 100)
            assert time.monotonic() - began_s < 5  # nobody waited
            assert log.lost > 0
            assert log.queued_bytes <= 64 * 1024
            until(lambda: "its reader has stopped" in log.fault)
            with pytest.raises(AuditUnavailable, match="its reader has stopped"):
                log.admit()
            data = b""
            deadline = Deadline(5)
            while _seen(data) < 2000:
                assert not deadline.passed()
                data += _read(reader)
            until(lambda: not log.fault)
            log.admit()
    finally:
        os.close(reader)
    found = [json.loads(line) for line in data.splitlines()]
    gaps = [record for record in found if record["event"] == "lost"]
    missing = [seq for gap in gaps for seq in range(gap["first_seq"], gap["last_seq"] + 1)]
    assert sorted(missing + numbers(found)) == list(range(1, len(found) + len(missing) + 1))
    assert len(missing) == log.lost == sum(gap["events"]["open"] for gap in gaps)


def _seen(data: bytes) -> int:
    """Records that arrived, and those that are known to be lost."""
    found = [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
    return sum(record.get("records", 1) for record in found)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def test_with_refuse_the_ends_of_what_runs_have_room_left(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with log_to(path, "refuse", max_bytes=256 * 1024) as log:
            opened = 0
            while _is_open(log):
                log.record("open", text="x" * 100)
                opened += 1
            for _ in range(opened // 2):
                log.record("end", text="x" * 100)
            assert log.lost == 0
    finally:
        os.close(reader)


def _is_open(log: AuditLog) -> bool:
    try:
        log.admit()
    except AuditUnavailable:
        return False
    return True


def test_standard_output_that_nobody_reads_blocks_neither_records_nor_the_end() -> None:
    code = """
import sys, time, structlog
from tunnel.aio.operate import audit
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
audit.STUCK_S = 0.2
log = audit.AuditLog("-", "refuse")
for _ in range(2000):
    log.record("open", text="x" * 100)
while not log.fault:
    time.sleep(0.01)
print(log.fault, file=sys.stderr)
log.close(0.2)
"""
    read_end, write_end = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=30
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    assert done.returncode == 0
    assert "the audit log standard output has taken nothing for" in done.stderr


def test_a_pipe_that_nobody_reads_yet(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with log_to(path) as log:
        log.record("open")
        until(lambda: log.fault)
        with path.open("rb") as reader:
            assert json.loads(reader.readline())["event"] == "open"


def test_what_a_killed_process_left_unfinished_spoils_no_record(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"seq": 1}\n{"se')
    with log_to(path) as log:
        log.record("open")
        assert log.flush(5)
    assert path.read_bytes().splitlines()[:2] == [b'{"seq": 1}', b'{"se']
    assert json.loads(path.read_bytes().splitlines()[2])["event"] == "open"


@pytest.mark.looptime
async def test_what_strangers_repeat_is_folded(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path))
    for _ in range(500):
        log.record_folded("login_refused", "192.0.2.1", frontend="connect", peer="192.0.2.1")
    log.record_folded("login_refused", "192.0.2.2", frontend="connect", peer="192.0.2.2")
    await asyncio.sleep(11)
    log.record_folded("login_refused", "192.0.2.2", frontend="connect", peer="192.0.2.2")
    log.record_folded("login_refused", "192.0.2.1", frontend="connect", peer="192.0.2.1")
    await log.aclose()
    assert [(record["peer"], record["count"]) for record in records(path)] == [
        ("192.0.2.1", 1),
        ("192.0.2.2", 1),
        ("192.0.2.1", 499),
        ("192.0.2.2", 1),
        ("192.0.2.1", 1),
    ]


@pytest.mark.looptime
async def test_more_strangers_than_are_kept_apart_are_counted_together(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path))
    for number in range(3000):
        log.record_folded("login_refused", number, peer=str(number))
    log.record_folded("read", "ann", who="ann")
    await log.aclose()
    found = records(path)
    reads = [record for record in found if record["event"] == "read"]
    assert [(record["who"], record["count"]) for record in reads] == [("ann", 1)], "it has a place of its own"
    found = [record for record in found if record["event"] != "read"]
    assert sum(record["count"] for record in found) == 3000
    assert len(found) == 1024 + 2
    assert found[-1]["others"] == "of more than 1024 sources"
