"""The service that runs commands as other accounts, so that the agent, which faces the network, needs only its own.

A service manager listens for it (sd_listen_fds(3)). The kernel says who connects: the agent's account, or root. Which
accounts may be become stands on this process's command line, which the agent cannot change; what may be run as them
was decided by the agent. Each command runs as a unit of its own (systemd-run(1)), outside of this service's sandbox
and the agent's, with its own share of memory, and is ended as a whole.
"""

from __future__ import annotations

import array
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Collection, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count

from edge_agent.hostkubelet.account import Account, find_account, terminal_group
from edge_agent.hostkubelet.settings import SettingsError
from tunnel.aio.process.handed import take_listen_fds
from tunnel.core.wire.faults import COMMAND_NOT_STARTED, FaultError

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""The longest request: the kernel takes 2 MiB of words for a command (ARG_MAX), and JSON may double them."""
MAX_COMMANDS = 256
"""The most commands that run at a time."""
ASK_S = 10.0
"""Seconds within which a request must be there as a whole."""
CONTROL_S = 30.0
"""Seconds within which the service manager must take a signal for a unit."""
IDLE_S = 60.0
"""Seconds without a command after which the process ends."""
SLICE, SERVICE = "longline-commands.slice", "edge-agent-commands.service"
PIPES = 3
_numbers = count(1)


class ServiceFailed(FaultError):
    """The service cannot be started; the text is for the operator."""

    default_fault = COMMAND_NOT_STARTED


class Refused(Exception):
    """A command is not run; the text is for whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command, and the ends of pipes or the terminal that it is to have."""

    account: str
    argv: Sequence[str]
    tty: bool
    shell: str
    """The value of SHELL; empty for the account's own."""


def serve(accounts: Collection[str], uid: int, environ: MutableMapping[str, str], *, idle_s: float = IDLE_S) -> None:
    """Runs commands for whoever connects, until nobody has for a while.

    Args:
        accounts: that commands may run as.
        uid: of the agent; root may ask, too.
        environ: variables with what the service manager hands over.
        idle_s: as IDLE_S.

    Raises:
        ServiceFailed: no socket was handed over, or there is no systemd-run.
    """
    handed = take_listen_fds(environ)
    if len(handed) != 1:
        raise ServiceFailed("one socket is expected of the service manager: start edge-agent-commands.socket")
    if shutil.which("systemd-run") is None or shutil.which("systemctl") is None:
        raise ServiceFailed("there is no systemd-run: without systemd, commands as others need an agent that is root")
    places = threading.BoundedSemaphore(MAX_COMMANDS)
    with socket.socket(fileno=handed[0].descriptor) as listener:
        listener.settimeout(idle_s)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if threading.active_count() == 1:
                    return
                continue
            _, peer, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if peer not in (0, uid) or not places.acquire(blocking=False):
                with connection, suppress(OSError):
                    _answer(connection, refused="this account may run no commands, or too many run")
                continue
            threading.Thread(target=_serve, args=(connection, accounts, places), daemon=True).start()


def unit_command(account: Account, request: Request, unit: str) -> list[str]:
    """Returns the command line that has a command run as a unit of its own, and ends as it does."""
    environment = [f"--setenv={name}={value}" for name, value in account.environment(request.tty).items()]
    properties = [
        "WorkingDirectory=-~",
        "UMask=0022",
        # What it leaves running on purpose stays, as after ssh.
        "KillMode=process",
        # Nobody could end it any more.
        f"BindsTo={SERVICE}",
        f"After={SERVICE}",
    ]
    return [
        "systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec",
        f"--unit={unit}", f"--slice={SLICE}", f"--uid={account.name}",
        *(f"--property={one}" for one in properties), *environment, "--",
        # A shell says, as everywhere, what cannot be found; and the manager would take a $ for a variable.
        "/bin/sh", "-c", _manager_text('exec "$@"'), "sh", *map(_manager_text, request.argv),
    ]  # fmt: skip


# Internal


def _manager_text(word: str) -> str:
    """Returns a word as the service manager leaves it alone: it replaces variables in command lines."""
    return word.replace("$", "$$")


def _serve(connection: socket.socket, accounts: Collection[str], places: threading.BoundedSemaphore) -> None:
    try:
        with connection, suppress(OSError), ExitStack() as theirs:
            connection.settimeout(ASK_S)
            try:
                request, pipes = _read(connection, theirs)
                exit_code = _run(connection, _allowed(request, accounts), request, pipes, theirs)
            except Refused as refused:
                _answer(connection, refused=str(refused))
            else:
                _answer(connection, exit=exit_code)
    finally:
        places.release()


def _read(connection: socket.socket, theirs: ExitStack) -> tuple[Request, list[int]]:
    """Returns what is asked for, and the descriptors that came with it, which are closed with `theirs`.

    Raises:
        Refused: it is no request.
        OSError: it did not come in time.
    """
    until_s = time.monotonic() + ASK_S
    head, controls, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC)
    pipes = array.array("i")
    for level, kind, data in controls:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            pipes.frombytes(data[: len(data) - len(data) % pipes.itemsize])
    for pipe in pipes:
        theirs.callback(os.close, pipe)
    size = int.from_bytes(head, "big")
    if len(head) != 4 or len(pipes) != PIPES or not 0 < size <= MAX_REQUEST_BYTES:
        raise Refused("what was asked is no request")
    text = bytearray()
    while len(text) < size:
        # For all of it: a byte now and then would hold a place for hours.
        connection.settimeout(max(0.001, until_s - time.monotonic()))
        if not (more := connection.recv(min(size - len(text), 65536))):
            raise Refused("the request is not whole")
        text += more
    connection.settimeout(ASK_S)
    return _parsed(bytes(text)), list(pipes)


def _parsed(text: bytes) -> Request:
    try:
        said = json.loads(text)
        account, argv, tty, shell = said["account"], said["argv"], said["tty"], said["shell"]
        if not isinstance(account, str) or not isinstance(tty, bool) or not isinstance(argv, list):
            raise TypeError
        if not argv or not all(isinstance(word, str) and "\0" not in word for word in [shell, *argv]):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused("what was asked is no request") from error
    return Request(account, argv, tty, shell)


def _allowed(request: Request, accounts: Collection[str]) -> Account:
    """Returns the account of a request.

    Raises:
        Refused: nothing runs as that account here.
    """
    if request.account not in accounts:
        name = request.account[:80]
        raise Refused(f"nothing runs as {name!r} here: edge-agent-commands.service says which accounts there are")
    try:
        return find_account(request.account, request.shell)
    except SettingsError as error:
        raise Refused(str(error)) from error


def _run(connection: socket.socket, account: Account, request: Request, pipes: Sequence[int], theirs: ExitStack) -> int:
    """Runs a command to its end, and returns its exit code. It is hung up when it is told so, and killed when whoever
    asked is gone.

    Raises:
        Refused: it cannot be started.
    """
    if request.tty:
        os.fchown(pipes[0], account.uid, terminal_group())  # it is opened by its name, as the account
    unit = f"longline-command-{os.getpid()}-{next(_numbers)}.service"
    command = unit_command(account, request, unit)
    try:
        process = subprocess.Popen(command, stdin=pipes[0], stdout=pipes[1], stderr=pipes[2], start_new_session=True)
    except OSError as error:
        raise Refused(f"systemd-run cannot be started: {error.strerror}") from error
    theirs.pop_all().close()  # whoever reads them must see their end with the command's
    with process:
        ended = os.pidfd_open(process.pid)
        waiting = select.poll()  # and not select(2), which takes no descriptor above 1023: 256 commands have more
        waiting.register(ended, select.POLLIN)
        waiting.register(connection, select.POLLIN)
        try:
            while True:
                if ended in dict(waiting.poll()):
                    return process.wait()
                if _hung_up(connection):
                    _signal(unit, "HUP")
                    continue
                process.kill()  # first, so that it starts nothing behind the signal
                process.wait()
                _signal(unit, "KILL")
                return process.returncode
        finally:
            os.close(ended)


def _hung_up(connection: socket.socket) -> bool:
    """Returns True for a hang-up, and False when whoever asked is gone: nothing of the command is left then."""
    try:
        return bool(connection.recv(16))
    except OSError:
        return False


def _signal(unit: str, name: str) -> None:
    with suppress(OSError, subprocess.TimeoutExpired):
        words = ["systemctl", "kill", f"--signal={name}", unit]
        subprocess.run(words, capture_output=True, timeout=CONTROL_S, check=False)


def _answer(connection: socket.socket, **said: object) -> None:
    connection.sendall(json.dumps(said).encode() + b"\n")
