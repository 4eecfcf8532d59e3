"""What systemd does for a `.socket` unit with `Accept=no`: it listens, starts the service when somebody connects, and
again when it has ended and the next one does (systemd.socket(5), sd_listen_fds(3)).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.processes import BIN, environment
from tests.support.waits import scaled_s

_SHELL = shutil.which("sh") or "/bin/sh"


class SocketUnit:
    """One socket and its service. Use as a context manager: nothing of it runs afterwards."""

    def __init__(self, path: Path, argv: Sequence[str], log: Path, *, prefix: Sequence[str] = ()) -> None:
        """`argv` is a command of ours, and `prefix` what stands before it."""
        self.log = log
        self.starts = 0
        self.pid = 0
        """The service while it runs; else 0."""
        self._argv = [*prefix, str(BIN / argv[0]), *argv[1:]]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)  # who may ask is for the service to say
        self._listener.listen(16)
        self._stop, self._stopped = os.pipe()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="socket unit", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._stopped)
        self.kill()
        self._thread.join(10)
        self._listener.close()
        os.close(self._stop)

    def kill(self) -> None:
        """The service is killed, if it runs."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait_ended(self, within_s: float = 10.0) -> None:
        """Wait until the service does not run."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self.pid, scaled_s(within_s)), "the service still runs"

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    # Internal

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener.fileno(), self._stop], [], [])
            if self._stop in ready:
                return
            self._serve()

    def _serve(self) -> None:
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        actions.append((os.POSIX_SPAWN_DUP2, self._listener.fileno(), 3))
        command = [_SHELL, "-c", 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"', "sh", *self._argv]
        pid = os.posix_spawn(_SHELL, command, environment(), file_actions=actions)
        os.close(log)
        with self._changed:
            self.starts, self.pid = self.starts + 1, pid
        os.waitpid(pid, 0)
        with self._changed:
            self.pid = 0
            self._changed.notify_all()
