"""A log pipeline that stops reading, is closed, or never was there: service and signals do not depend on it.

systemd issue 6620 and moby issue 22502 tell of daemons that froze whole when whoever read their standard error did.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import BIN, Daemon, environment
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel
from tests.support.waits import scaled_s
from tunnel.aio.operate.admin_client import unix_client

DEAD_AFTER_S = 1.0
ECHOES = 5000
"""Each leaves some ten lines of 200 bytes in the log of frames: many times what waits for a reader."""


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def fill(write_end: int) -> int:
    """Leave no room in the pipe; returns how many bytes are in it."""
    size = fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ)
    written = os.write(write_end, b"." * (size - 1) + b"\n")
    assert written == size
    return size


def restart(made: Tunnel, stderr: int) -> None:
    """Both daemons anew, however the last test left them, with that as their standard error."""
    for daemon in (made.box.agent, made.cluster.server):
        daemon.kill()
    made.cluster.server.start(stderr=stderr).wait_ready()
    made.box.agent.start(stderr=stderr).wait_ready()


@pytest.fixture(scope="module")
def made() -> Iterator[Tunnel]:
    server = {"tunnel": {"suspect_after_s": DEAD_AFTER_S / 2, "dead_after_s": DEAD_AFTER_S}, "drain_s": 1.0}
    with tunnel(["echo"], server=server) as one:
        yield one


def test_the_reader_leaves_after_a_line(made: Tunnel) -> None:
    """As with `cloud-server run ... 2>&1 | head -1`."""
    with pipe() as (read_end, write_end):
        restart(made, write_end)
        os.close(write_end)
        assert os.read(read_end, 1)
        os.close(read_end)
        for _ in range(3):
            with made.dial("echo") as sock:
                assert exchange(sock) == b"ping"
        for daemon in (made.box.agent, made.cluster.server):
            assert daemon.stop() == 0


@pytest.mark.e2e
def test_nobody_reads_for_longer_than_a_link_may_be_silent(made: Tunnel) -> None:
    with pipe() as (_read_end, write_end):
        fill(write_end)
        restart(made, write_end)
        with made.dial("echo") as sock:
            until_s = time.monotonic() + scaled_s(3 * DEAD_AFTER_S)
            while time.monotonic() < until_s:
                assert exchange(sock) == b"ping"
                with made.dial("echo") as other:
                    assert exchange(other) == b"ping"
            for daemon in (made.box.agent, made.cluster.server):
                daemon.send(signal.SIGTERM)
            assert exchange(sock) == b"ping"  # it drains as it always does
        assert [daemon.wait() for daemon in (made.box.agent, made.cluster.server)] == [0, 0]


@pytest.mark.e2e
def test_lost_lines_are_counted_and_told_when_it_is_read_again(made: Tunnel) -> None:
    for daemon in (made.box.agent, made.cluster.server):
        daemon.kill()
    with pipe() as (read_end, write_end):
        filled = fill(write_end)
        made.cluster.server.start(stderr=write_end).wait_ready()
        os.close(write_end)
        made.restart_box()
        unix_client(made.cluster.config.parent / "admin.sock").call("PUT", f"agents/{BOX}/frame-log", {"enabled": True})
        with made.dial("echo") as sock:
            for _ in range(ECHOES):
                assert exchange(sock) == b"ping"
        lines = read_all(read_end, filled, made.cluster.server)
    (lost,) = [line for line in lines if "log lines were lost" in line["event"]]
    assert lost["level"] == "warning"
    assert lost["event"].startswith(f"{lost['lost']} log lines were lost")
    sent = [line for line in lines if line["event"].startswith("> DATA")]
    assert ECHOES - lost["lost"] <= len(sent) < ECHOES
    assert "stopping" in [line["event"] for line in lines]


def read_all(read_end: int, filled: int, server: Daemon) -> list[dict[str, Any]]:
    """Read on, end the server, and return its lines."""
    data = b""
    while b"log lines were lost" not in data:
        data += os.read(read_end, 65536)
    server.send(signal.SIGTERM)
    while more := os.read(read_end, 65536):
        data += more
    assert server.wait() == 0
    return [json.loads(line) for line in data[filled:].splitlines()]


def test_started_without_standard_descriptors(made: Tunnel) -> None:
    """`2>&-`: none of the daemon's sockets may get the number that everyone prints to."""
    for daemon in (made.box.agent, made.cluster.server):
        daemon.kill()
        daemon.go_through("sh", "-c", 'exec "$0" "$@" 0<&- 1>&- 2>&-')
    made.cluster.start()
    made.restart_box()
    for daemon in (made.box.agent, made.cluster.server):
        descriptors = [str(Path(f"/proc/{daemon.pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
        assert descriptors[:2] == ["/dev/null", "/dev/null"]
        assert not descriptors[2].startswith("socket:")
    with made.dial("echo") as sock:
        assert exchange(sock) == b"ping"
    for daemon in (made.box.agent, made.cluster.server):
        assert daemon.stop() == 0


def test_commands_whose_output_nobody_takes_say_so_without_a_traceback(made: Tunnel) -> None:
    words = f"{BIN}/cloud-server agent list --config {made.cluster.config}"
    for output in ("> /dev/full", "| head -c 0", ">&-"):
        done = subprocess.run(
            ["bash", "-c", f"{words} {output}"], capture_output=True, text=True, env=environment(), check=False
        )
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
        assert ("No space left" in done.stderr) == ("full" in output)


def test_a_command_that_fails_says_so_by_its_exit_code_when_nobody_reads_why() -> None:
    for output in ("2> /dev/full", "2>&-"):
        done = subprocess.run(
            ["bash", "-c", f"{BIN}/cloud-server check --config /nowhere.toml {output}"], env=environment(), check=False
        )
        assert done.returncode == 2
