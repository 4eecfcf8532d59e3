"""One process of a daemon takes over from another while both run: the older starts the newer, and hands it
descriptors.

The newer one gets one end of a socket pair, whose number is in LONGLINE_SUCCESSION, and through it the descriptors by
name (SCM_RIGHTS). It says `ready` when it could do the work, and does nothing of it before it hears `go`: the older has
let go of the work by then. LISTEN_FDS would need the descriptors at 3, 4, ... of the new process, that is code between
fork and exec, which hangs or crashes in a process with gRPC's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import MutableMapping, Sequence

from tunnel.aio.process.handed import Handed
from tunnel.core.wire.faults import NOT_UPGRADED, FaultError
from tunnel.core.wire.spoken import spoken_s

ENVIRONMENT = "LONGLINE_SUCCESSION"
DESCRIPTORS_PER_MESSAGE = 200
"""How many descriptors one message carries; Linux takes 253 (SCM_MAX_FD)."""
NAMES_BYTES = 64 * 1024
"""The most bytes of names in one message: 200 names of 255 characters."""
HANDING_S = 10.0
"""Seconds for the descriptors, which wait in the socket while the new process loads its interpreter."""
_READY = b"ready"
_GO = b"go"
_STOP_TEXT = "it was stopped"


class SuccessorFailed(FaultError):
    """The new process will not take over; the text says why."""

    default_fault = NOT_UPGRADED


class Successor:
    """The newer process, as the older one sees it: `start` it, `wait_ready`, then `go` or `kill`."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process = process
        self._channel = channel

    @classmethod
    def start(cls, handed: Sequence[Handed]) -> Successor:
        """Starts this process' own command again, as it is on disk now, and hands it these descriptors. Blocking.

        Raises:
            SuccessorFailed: it cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, *sys.orig_argv[1:]]
        environment = {**os.environ, ENVIRONMENT: str(theirs.fileno())}
        environment.pop("WATCHDOG_PID", None)  # systemd waits for signs of life of the main process, which it will be
        with theirs:
            try:
                # vfork and exec, as nothing is asked that needs a fork.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
                )
            except OSError as error:
                ours.close()
                raise SuccessorFailed(f"{command[0]} cannot be started: {error.strerror}") from error
        successor = cls(process, ours)
        try:
            ours.settimeout(HANDING_S)
            _send_handed(ours, handed)
            ours.setblocking(False)
        except OSError as error:
            successor.kill()
            raise SuccessorFailed(f"the new process did not take the listeners: {error}") from error
        return successor

    @property
    def pid(self) -> int:
        """Returns the process id of the new process."""
        return self._process.pid

    async def wait_ready(self, within_s: float) -> None:
        """Waits until the new process could take over.

        Raises:
            SuccessorFailed: it ended, or took longer.
        """
        try:
            async with asyncio.timeout(within_s):
                said = await asyncio.get_running_loop().sock_recv(self._channel, len(_READY))
        except TimeoutError:
            raise SuccessorFailed(f"it was not ready within {spoken_s(within_s)}") from None
        except ConnectionError:
            said = b""
        if said != _READY:
            code = await asyncio.to_thread(self._ended)
            raise SuccessorFailed(f"it ended with {code} before it was ready; the log has what it said")

    def go(self) -> None:
        """Lets the new process take over; this one has let go.

        Raises:
            SuccessorFailed: it is gone.
        """
        try:
            self._channel.send(_GO)
        except OSError as error:
            raise SuccessorFailed(f"it has ended since it was ready: {error.strerror}") from error
        finally:
            self._channel.close()

    def kill(self) -> None:
        """Kills the new process, whatever it does. Blocking, for no longer than the kernel takes."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    # Internal

    def _ended(self) -> str:
        try:
            code = self._process.wait(1.0)  # its end of the channel is closed, and the rest of it soon
        except subprocess.TimeoutExpired:
            return _STOP_TEXT
        return f"exit code {code}" if code >= 0 else f"signal {-code}"


class Predecessor:
    """The older process, as the newer one sees it.

    Call `ready` when this one could take over, then wait for `let_go`.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> tuple[Predecessor, list[Handed]] | None:
        """Returns the process that started this one to take over, and what it handed; None when nobody did. Blocking.

        It must be called at the very start: children must inherit nothing of it.

        Raises:
            OSError: the older process hands nothing over.
        """
        number = environ.pop(ENVIRONMENT, "")
        if not number:
            return None
        os.set_inheritable(int(number), False)
        channel = socket.socket(fileno=int(number))
        channel.settimeout(HANDING_S)
        handed = list(_receive_handed(channel))
        channel.setblocking(False)
        return cls(channel), handed

    def ready(self) -> None:
        """Says that this process could take over."""
        with contextlib.suppress(OSError):  # nobody is left to hear it, which `let_go` finds, too
            self._channel.send(_READY)

    async def let_go(self) -> bool:
        """Waits until the older process has let go.

        Returns False when it is gone without a word: this one is all there is.
        """
        try:
            return await asyncio.get_running_loop().sock_recv(self._channel, len(_GO)) == _GO
        except ConnectionError:
            return False
        finally:
            self._channel.close()


# Internal


def _send_handed(channel: socket.socket, handed: Sequence[Handed]) -> None:
    """Sends messages with names and descriptors, and one with neither at the end."""
    for first in range(0, len(handed), DESCRIPTORS_PER_MESSAGE):
        part = handed[first : first + DESCRIPTORS_PER_MESSAGE]
        names = json.dumps([one.name for one in part]).encode()
        socket.send_fds(channel, [names], [one.descriptor for one in part])
    channel.send(b"[]")


def _receive_handed(channel: socket.socket) -> list[Handed]:
    handed: list[Handed] = []
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, NAMES_BYTES, DESCRIPTORS_PER_MESSAGE)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        names = json.loads(message or b"[]")
        if not names:
            return handed
        handed += [Handed(name, descriptor) for name, descriptor in zip(names, descriptors, strict=True)]
