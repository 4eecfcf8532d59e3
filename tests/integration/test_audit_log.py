"""The server's audit log as it stands on a disk, through everything that happens to a server and to its disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tunnel import BOX, Tunnel, exchange, read_to_end, tunnel, wait_until

Record = dict[str, Any]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def made(path: Path) -> Iterator[Tunnel]:
    with tunnel(["echo"], server={"audit": {"file": str(path), "on_failure": "refuse"}}) as running:
        yield running


def records(path: Path, *events: str) -> list[Record]:
    """Those that stand there whole."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [record for record in found if not events or record["event"] in events]


def of_one(path: Path, trace_id: str) -> list[str]:
    return [record["event"] for record in records(path) if record.get("trace_id") == trace_id]


def test_a_connection_is_there_before_its_first_byte_and_with_one_name_on_both_sides(made: Tunnel, path: Path) -> None:
    before = len(records(path, "open"))
    with made.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        wait_until(lambda: len(records(path, "open")) == before + 1, "the start is recorded")
        opened = records(path, "open")[-1]
        assert (opened["frontend"], opened["kind"], opened["agent"]) == ("forward", "static_forward", BOX)
    wait_until(lambda: of_one(path, opened["trace_id"]) == ["open", "end"], "the end is recorded")
    ended = records(path, "end")[-1]
    assert (ended["bytes_to_agent"], ended["bytes_from_agent"]) == (4, 4)
    made.box.agent.wait_for_log(opened["trace_id"])
    numbers = [record["seq"] for record in records(path)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_file_that_is_renamed_is_made_anew_on_sighup(made: Tunnel, path: Path) -> None:
    old = path.with_suffix(".1")
    path.rename(old)
    os.kill(made.cluster.server.pid, signal.SIGHUP)
    wait_until(path.exists, "the file is made anew")
    with made.dial("echo") as sock:
        assert exchange(sock) == b"ping"
    wait_until(lambda: records(path, "end"), "the record is in the new file")
    assert records(path)[0]["seq"] == records(old)[-1]["seq"] + 1


def test_while_the_disk_is_full_nothing_new_is_let_in_and_what_runs_goes_on(made: Tunnel, path: Path) -> None:
    with made.dial("echo") as running:
        assert exchange(running) == b"ping"
        wait_until(lambda: len(records(path, "open")) == len(records(path, "end")) + 1, "it is recorded")
        kept = path.with_suffix(".kept")
        path.rename(kept)
        path.symlink_to("/dev/full")

        def refused() -> bool:
            with contextlib.suppress(ConnectionResetError), made.dial("echo") as sock:
                return exchange(sock) == b""
            return True

        wait_until(refused, "a new connection is refused")
        assert exchange(running, b"still") == b"still"
        made.cluster.server.wait_for_log("No space left on device")
        path.unlink()
        kept.rename(path)
        wait_until(lambda: not refused(), "there is room again")
    wait_until(lambda: len(records(path, "open")) == len(records(path, "end")), "all ends are recorded")
    assert "LL6014" in str(records(path, "refused"))
    assert records(path, "lost") == []
    numbers = [record["seq"] for record in records(path.with_suffix(".1")) + records(path)]
    assert numbers == list(range(1, len(numbers) + 1)), "nothing is missing"


def test_after_a_kill_the_log_says_who_was_connected(made: Tunnel, path: Path) -> None:
    with made.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        wait_until(lambda: len(records(path, "open")) == len(records(path, "end")) + 1, "it is recorded")
        made.cluster.server.kill()
        with contextlib.suppress(ConnectionResetError):
            read_to_end(sock)
    ended = {record["trace_id"] for record in records(path, "end")}
    (cut,) = [record for record in records(path, "open") if record["trace_id"] not in ended]
    assert (cut["frontend"], cut["agent"]) == ("forward", BOX)
    made.cluster.start()
    wait_until(lambda: records(path)[-1]["seq"] == 1, "the next run counts from 1")
    assert records(path)[-1]["event"] == "started"
