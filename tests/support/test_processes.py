"""Starting, watching and ending daemons, and editing their configs."""

from __future__ import annotations

import signal
import tomllib
from pathlib import Path

import pytest

from tests.support.cluster import edit_toml
from tests.support.processes import Daemon, ProcessFailed, command_result, run_command

READY = (
    "import os, signal, socket, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    "print('starting up', flush=True)\n"
    "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "s.sendto(b'READY=1\\nSTATUS=well', os.environ['NOTIFY_SOCKET'])\n"
    "time.sleep(60)"
)


def daemon(code: str, folder: Path) -> Daemon:
    return Daemon("it", ["python", "-c", code], folder / "it.log")


def test_a_daemon_is_ready_when_it_says_so(tmp_path: Path) -> None:
    with daemon(READY, tmp_path) as it:
        it.start().wait_ready()
        assert it.notify.states == ["READY=1", "STATUS=well"]
        assert "starting up" in it.wait_for_log("starting")
        assert it.rss_bytes() > 1_000_000
        assert it.descriptors() >= 4
        assert it.stop() == 7
        it.start().wait_ready()
        it.kill()
        assert it.wait() == -signal.SIGKILL
    assert not it.running


def test_a_daemon_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    with daemon("print('no such file: x.toml')", tmp_path) as it:
        with pytest.raises(ProcessFailed, match=r"it\| no such file: x.toml"):
            it.start().wait_ready()


def test_a_daemon_that_is_not_ready_in_time_is_killed(tmp_path: Path) -> None:
    with daemon("import time; time.sleep(60)", tmp_path) as it:
        with pytest.raises(ProcessFailed, match="not ready within"):
            it.start().wait_ready(0.2)
        with pytest.raises(ProcessFailed, match="did not log 'hello'"):
            it.wait_for_log("hello", 0.1)
    assert not it.running


def test_commands() -> None:
    assert run_command("python", "-c", "print('yes')") == "yes\n"
    with pytest.raises(ProcessFailed, match=r"exited with 3:\nwhy"):
        run_command("python", "-c", "import sys; print('why'); sys.exit(3)")
    assert command_result("python", "-c", "import sys; sys.exit(2)").returncode == 2


def test_editing_toml_keeps_what_it_is_not_told_to_change(tmp_path: Path) -> None:
    path = tmp_path / "it.toml"
    path.write_text('top = 1\n[cloud]\nservers = ["a:1"]\n[host]\nexec = false\n[[allow]]\ntarget = "x:1"\n')
    edit_toml(path, {"host": {"user": "root"}, "allow": [{"target": "y:2"}, {"target": 'z"\n:3'}], "top": None})
    assert tomllib.loads(path.read_text()) == {
        "cloud": {"servers": ["a:1"]},
        "host": {"exec": False, "user": "root"},
        "allow": [{"target": "y:2"}, {"target": 'z"\n:3'}],
    }
