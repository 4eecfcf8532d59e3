"""Signals and exit codes of a daemon, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DAEMON = """
import asyncio
import sys
import structlog
from tunnel.aio.lifecycle import Stop, run_daemon

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main(stop: Stop) -> int:
    print("up", flush=True)
    await stop.wait()
    print("draining", flush=True)
    try:
        await asyncio.sleep({drain})
    finally:
        print("clean", flush=True)
    return 0

raise SystemExit(run_daemon(main))
"""


@contextmanager
def started(drain: float) -> Iterator[subprocess.Popen[str]]:
    code = DAEMON.format(drain=drain)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == "up\n"
            yield daemon
        finally:
            daemon.kill()


def test_first_signal_drains_and_exits_0() -> None:
    with started(0.01) as daemon:
        daemon.send_signal(signal.SIGTERM)
        out, _ = daemon.communicate(timeout=20)
        assert out == "draining\nclean\n"
        assert daemon.returncode == 0


def test_second_signal_cuts_the_drain_short() -> None:
    with started(60) as daemon:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "draining\n"
        daemon.send_signal(signal.SIGINT)
        out, _ = daemon.communicate(timeout=20)
        assert out == "clean\n"
        assert daemon.returncode == 1
