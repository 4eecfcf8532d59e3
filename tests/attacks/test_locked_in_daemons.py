"""The daemons do all that they do without memory that is both written and run, and without changing limits and
priorities: so that the units can forbid it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import cluster
from tests.support.processes import run_command
from tests.support.targets import Target
from tests.support.tunnel import exchange

LOCKED = [sys.executable, str(Path(__file__).parent.parent / "support/locked_in.py")]
_MAY = """
import ctypes, mmap, os
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    print("no code")
try:
    os.setpriority(os.PRIO_PROCESS, 0, 5)
except PermissionError:
    print("no priority")
"""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        platform.machine() != "x86_64" or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 3),
        reason="needs Linux 6.3 on x86-64",
    ),
]


def test_they_do_all_that_they_do() -> None:
    seen = subprocess.run([*LOCKED, sys.executable, "-c", _MAY], capture_output=True, text=True)
    assert seen.stdout.split("\n")[:2] == ["no code", "no priority"], seen.stderr
    with Target("echo") as target, cluster() as made:
        made.server.go_through(*LOCKED)
        made.start()  # asks the process that signs, which is locked in as well
        box = made.join("box-7", allow=[f"127.0.0.1:{target.port}"])
        box.agent.go_through(*LOCKED)
        made.start_box("box-7")
        with made.dial(f"box-7:{target.port}") as sock:
            assert exchange(sock) == b"ping"
        with made.dial_tls(f"box-7:{target.port}") as sock:
            assert exchange(sock) == b"ping"
        run_command("edge-agent", "rotate-key", "--config", str(box.config))
        answer = run_command("longline", "agents", "--kubeconfig", str(made.kubeconfig()))
        assert "box-7" in answer
