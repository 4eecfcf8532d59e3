"""The daemons as real processes: from this interpreter's `bin`, ready by a real NOTIFY_SOCKET, logs in files."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.support.waits import Deadline, scaled_s

BIN = Path(sys.executable).parent
STOP_S = 10.0
TAIL_LINES = 40


class ProcessFailed(Exception):
    """A daemon or command did not do what it should; the text has the tail of its log."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the daemons run with: nothing of the caller's that could lead them elsewhere."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TERM", "USER") if name in os.environ}
    path = f"{BIN}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}


def run_command(*argv: str, prefix: Sequence[str] = (), timeout_s: float = 30.0) -> str:
    """Run one of our commands to its end, and return its standard output.

    Raises:
        ProcessFailed: it did not exit with 0.
    """
    done = command_result(*argv, prefix=prefix, timeout_s=timeout_s)
    if done.returncode:
        raise ProcessFailed(f"{' '.join(argv)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def command_result(*argv: str, prefix: Sequence[str] = (), timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run one of our commands to its end, whatever its exit code."""
    command = [*prefix, str(BIN / argv[0]), *argv[1:]]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=scaled_s(timeout_s))


class NotifySocket:
    """What systemd would listen on: the states that a daemon reports."""

    def __init__(self) -> None:
        # Its own short folder: the path of a unix socket has no room for a test's.
        self._folder = tempfile.TemporaryDirectory(prefix="ll-notify-")
        self.path = f"{self._folder.name}/notify"
        self.states: list[str] = []
        """All that was reported so far, as in `READY=1`."""
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        Path(self.path).chmod(0o666)
        self._thread = threading.Thread(target=self._receive, name="notify", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """A new process begins: nothing is reported yet."""
        with self._changed:
            self.states.clear()

    def wait(self, state: str, timeout_s: float) -> bool:
        """Whether `state` was reported within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: state in self.states, timeout_s)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        self._folder.cleanup()

    def _receive(self) -> None:
        while message := self._socket.recv(4096):
            with self._changed:
                self.states += message.decode().splitlines()
                self._changed.notify_all()


class Daemon:
    """One daemon, started as often as a test likes. Use as a context manager, or call `close`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        prefix: Sequence[str] = (),
        prefix_stays: bool = False,
        cwd: Path | None = None,
    ) -> None:
        """Set up what to start.

        Args:
            name: for people.
            argv: a command of ours, or a path.
            log: takes its output.
            prefix: words before the command: what enters a namespace.
            prefix_stays: whether they stay as its parent, with which it dies: who enters a PID namespace must fork.
            cwd: where it runs; None for here.
        """
        self.name = name
        self.log = log
        self._cwd = cwd
        self._prefix_stays = prefix_stays
        self.notify = NotifySocket()
        self.environment: dict[str, str] = {}
        """What it gets beside the usual."""
        self._argv = [*prefix, str(BIN / argv[0]), *argv[1:]]
        self._process: subprocess.Popen[bytes] | None = None

    def go_through(self, *words: str) -> None:
        """Put words before its command, for its next start."""
        self._argv = [*words, *self._argv]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, stderr: int | None = None) -> Self:
        """Start it; `wait_ready` tells when it is up. `stderr`: a descriptor in place of its log."""
        assert not self.running, f"{self.name} runs already"
        self.notify.forget()
        own = environment({"NOTIFY_SOCKET": self.notify.path, **self.environment})
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=stderr or log, env=own, cwd=self._cwd
            )
        return self

    def wait_ready(self, timeout_s: float = 15.0) -> Self:
        """Wait for READY=1.

        Raises:
            ProcessFailed: it ended, or was not ready in time.
        """
        deadline = Deadline(timeout_s)
        while not self.notify.wait("READY=1", 0.1):
            if not self.running:
                raise ProcessFailed(f"{self.name} ended before it was ready:\n{self.tail()}")
            if deadline.passed():
                raise ProcessFailed(f"{self.name} was not ready within {timeout_s:g} s:\n{self.tail()}")
        return self

    def send(self, signal_number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)

    def kill(self) -> None:
        """As a power cut does: `kill -9`. It has let go of its ports when this returns."""
        if self._process is None:
            return
        under = psutil.Process(self.pid).children() if self._prefix_stays and self.running else []
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(under, timeout=scaled_s(STOP_S))

    def stop(self, timeout_s: float = STOP_S) -> int:
        """SIGTERM, and the exit code.

        Raises:
            ProcessFailed: it did not end in time; it is killed.
        """
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for its end, and return the exit code.

        Raises:
            ProcessFailed: it did not end in time; it is killed.
        """
        assert self._process is not None
        try:
            return self._process.wait(scaled_s(timeout_s))
        except subprocess.TimeoutExpired as expired:
            self.kill()
            raise ProcessFailed(f"{self.name} did not end within {timeout_s:g} s:\n{self.tail()}") from expired

    def close(self) -> None:
        """Kill it if it still runs."""
        self.kill()
        self.notify.close()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of its log, for people."""
        return "\n".join(f"  {self.name}| {line}" for line in self.log_text().splitlines()[-lines:])

    def wait_for_log(self, text: str, timeout_s: float = 5.0, *, after: int = 0) -> str:
        """Wait until the log, after that many characters, contains `text`; returns that part of the log.

        Raises:
            ProcessFailed: it did not in time.
        """
        deadline = Deadline(timeout_s)
        while text not in (part := self.log_text()[after:]):
            if deadline.passed():
                raise ProcessFailed(f"{self.name} did not log {text!r} within {timeout_s:g} s:\n{self.tail()}")
            time.sleep(0.02)
        return part

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def descriptors(self) -> int:
        """How many file descriptors it holds."""
        return int(psutil.Process(self.pid).num_fds())

    def threads(self) -> int:
        return int(psutil.Process(self.pid).num_threads())

    def children(self) -> list[psutil.Process]:
        """The processes that it started and that still run."""
        return list(psutil.Process(self.pid).children(recursive=True))
