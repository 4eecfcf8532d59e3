"""Signals and exit codes of a daemon, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.waits import scaled_s

DAEMON = """
import asyncio
import sys
import structlog
from tunnel.aio.process.lifecycle import Stop, run_daemon
from tunnel.aio.process.tasks import TaskOwner

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def part() -> None:
    {part}

async def main(stop: Stop) -> int:
    tasks = TaskOwner("daemon")
    stop.watch(tasks.spawn("part", part()))
    print("up", flush=True)
    await stop.wait()
    print("draining", flush=True)
    await stop.drain(asyncio.sleep({drain}))
    print("cleaning", flush=True)
    await asyncio.sleep({clean})
    await tasks.aclose()
    print("clean", flush=True)
    return 0

raise SystemExit(run_daemon(main, sys.stderr.flush))
"""
LONG_S = 60
RUNS_ON = f"await asyncio.sleep({LONG_S})"


@contextmanager
def started(
    *, drain: float, clean: float = 0, part: str = "await asyncio.sleep(60)"
) -> Iterator[subprocess.Popen[str]]:
    code = DAEMON.format(drain=drain, clean=clean, part=part)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            says(daemon, "up")
            yield daemon
        finally:
            daemon.kill()


def says(daemon: subprocess.Popen[str], line: str) -> None:
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == f"{line}\n"


def rest(daemon: subprocess.Popen[str]) -> tuple[str, str, int]:
    """What it says until its end, what it logs, and its exit code."""
    assert daemon.stdout is not None
    assert daemon.stderr is not None
    out, log = daemon.stdout.read(), daemon.stderr.read()  # not communicate(), which forgets what was read ahead
    return out, log, daemon.wait(timeout=scaled_s(20))


def test_first_signal_drains_and_exits_0() -> None:
    with started(drain=0.01) as daemon:
        daemon.send_signal(signal.SIGTERM)
        out, log, code = rest(daemon)
    assert (out, code) == ("draining\ncleaning\nclean\n", 0)
    assert "stopping" in log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_cuts_the_drain_short(second: signal.Signals) -> None:
    with started(drain=LONG_S) as daemon:
        daemon.send_signal(signal.SIGTERM)
        says(daemon, "draining")
        daemon.send_signal(second)
        out, log, code = rest(daemon)
    assert (out, code) == ("cleaning\nclean\n", 1)
    assert "second signal" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("drain", [0.01, LONG_S])
def test_a_signal_while_it_cleans_up_ends_it_there(drain: float) -> None:
    with started(drain=drain, clean=LONG_S) as daemon:
        daemon.send_signal(signal.SIGTERM)
        says(daemon, "draining")
        if drain == LONG_S:
            daemon.send_signal(signal.SIGTERM)
        says(daemon, "cleaning")
        daemon.send_signal(signal.SIGTERM)
        out, log, code = rest(daemon)
    assert (out, code) == ("", 1)
    assert "at once" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("part", ["raise ValueError('a bug')", "return"])
def test_a_part_that_ends_by_itself_ends_the_daemon_so_that_it_is_started_anew(part: str) -> None:
    with started(drain=0.01, part=part) as daemon:
        out, log, code = rest(daemon)
    assert (out, code) == ("draining\ncleaning\nclean\n", 1)
    assert "daemon: part" in log
