"""What systemd does for a `Type=notify` service with a descriptor store: start, sd_notify, FDSTORE, MAINPID, restart.

After sd_notify(3), sd_listen_fds(3) and "File Descriptor Store" of systemd's documentation; only the main process is
listened to (NotifyAccess=main).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.processes import BIN, ProcessFailed, environment
from tests.support.waits import scaled_s

_CREDENTIALS = struct.Struct("3i")
_HIGH = 200
"""Where the store's descriptors are: above what a start puts at 3, 4, ..."""
_SHELL = shutil.which("sh") or "/bin/sh"


class ServiceManager:
    """One service. Use as a context manager: nothing of it runs afterwards."""

    def __init__(self, argv: Sequence[str], log: Path, *, store_max: int = 0) -> None:
        """`store_max`: FileDescriptorStoreMax=."""
        self.log = log
        self.main_pid = 0
        self.store: list[tuple[str, int]] = []
        """Names and descriptors that are kept."""
        self.refused: list[str] = []
        """What others than the main process said."""
        self._argv = [str(BIN / argv[0]), *argv[1:]]
        self._store_max = store_max
        self._states: list[str] = []
        self._changed = threading.Condition()
        self._pids: list[int] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ll-manager-")
        self._path = f"{self._folder.name}/notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._thread = threading.Thread(target=self._receive, name="service manager", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._gone(pid, 10)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        for _, descriptor in self.store:
            os.close(descriptor)
        self._folder.cleanup()

    def start(self) -> None:
        """Start it with what the store holds, and wait until it is ready."""
        with self._changed:
            self._states.clear()
        own = {"NOTIFY_SOCKET": self._path}
        if self._store_max:
            own["FDSTORE"] = str(self._store_max)
        if self.store:
            own["LISTEN_FDS"] = str(len(self.store))
            own["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.store)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, one[1], 3 + index) for index, one in enumerate(self.store)]
        command = [_SHELL, "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *self._argv]
        self.main_pid = os.posix_spawn(_SHELL, command, environment(own), file_actions=actions)
        self._pids.append(self.main_pid)
        os.close(log)
        self.wait_for("READY=1")

    def wait_for(self, state: str, within_s: float = 30.0) -> None:
        """Wait until the main process has said this since its start.

        Raises:
            ProcessFailed: it did not in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: state in self._states, scaled_s(within_s)):
                raise ProcessFailed(f"no {state} within {within_s:g} s:\n{self.log.read_text()[-4000:]}")

    def stop(self, within_s: float = 45.0) -> None:
        """SIGTERM to the main process, and wait for its end."""
        pid = self.main_pid
        os.kill(pid, signal.SIGTERM)
        if not self._gone(pid, scaled_s(within_s)):
            raise ProcessFailed(f"process {pid} did not end within {within_s:g} s:\n{self.log.read_text()[-4000:]}")

    def restart(self) -> None:
        """`systemctl restart`: the store stays."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """The main process is killed."""
        os.kill(self.main_pid, signal.SIGKILL)
        self._gone(self.main_pid, 10)

    # Internal

    def _gone(self, pid: int, within_s: float) -> bool:
        """Wait for the end of a process, of our own children and of theirs."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            ended = bool(select.select([handle], [], [], within_s)[0])
        finally:
            os.close(handle)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return ended

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(16 * 4)
        while True:
            message, controls, _, _ = self._socket.recvmsg(4096, space, socket.MSG_CMSG_CLOEXEC)
            if not message:
                return
            sender, descriptors = 0, []
            for level, kind, data in controls:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
                elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors = list(struct.unpack(f"{len(data) // 4}i", data))
            with self._changed:
                self._told(sender, message.decode().splitlines(), descriptors)
                self._changed.notify_all()

    def _told(self, sender: int, lines: list[str], descriptors: list[int]) -> None:
        if sender != self.main_pid:
            self.refused += lines
            for descriptor in descriptors:
                os.close(descriptor)
            return
        values = dict(line.split("=", 1) for line in lines)
        self._states += lines
        name = values.get("FDNAME", "stored")
        if "MAINPID" in values:
            self.main_pid = int(values["MAINPID"])
            self._pids.append(self.main_pid)
            self._states.clear()
        if "FDSTOREREMOVE" in values:
            for kept in [one for one in self.store if one[0] == name]:
                self.store.remove(kept)
                os.close(kept[1])
        for descriptor in descriptors:
            self._keep(name, descriptor)

    def _keep(self, name: str, descriptor: int) -> None:
        known = {os.fstat(kept).st_ino for _, kept in self.store}
        if os.fstat(descriptor).st_ino not in known and len(self.store) < self._store_max:
            self.store.append((name, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)))
        os.close(descriptor)
