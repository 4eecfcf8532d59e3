"""What stands in the place of a command that the service for commands is to run."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from edge_agent.hostkubelet import run_elsewhere
from tests.support.waits import scaled_s

LONG = "x" * 100_000
"""Four of them are more than the kernel keeps of what nobody reads."""


def asked(path: Path, *argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", run_elsewhere.__file__, str(path), "nobody", *argv]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_who_is_refused_before_they_have_asked_is_told_why(tmp_path: Path) -> None:
    path = tmp_path / "commands.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with asked(path, "true", *[LONG] * 4) as process:
            connection, _ = listener.accept()
            with connection:
                assert len(connection.recv(4)) == 4
                connection.sendall(b'{"refused": "too many run"}\n')
            _, said = process.communicate(timeout=scaled_s(20))
    assert (process.returncode, said) == (run_elsewhere.NOT_STARTED, "too many run\n")


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "commands.sock"
    with asked(path, "true") as process:
        _, said = process.communicate(timeout=scaled_s(20))
    reason = f"commands are run by {path}, which cannot be asked: No such file or directory"
    assert (process.returncode, said) == (run_elsewhere.NOT_STARTED, f"{reason}\n")
