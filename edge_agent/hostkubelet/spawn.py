"""Starts a process on this box as an account, on pipes or on a terminal of its own.

`subprocess` does it by vfork, as long as nothing is asked of it that needs a fork (`preexec_fn`, `user`, `group`): in a
fork of a process that uses gRPC, gRPC's own handlers run in the child and crash it. It blocks until the exec has worked
or failed, a millisecond or two, and so belongs into a thread (running.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.hostkubelet.account import Account
from edge_agent.hostkubelet.terminal import open_terminal
from tunnel.core.wire.faults import COMMAND_NOT_STARTED, FaultError


class StartError(FaultError):
    """The program could not be executed.

    Attributes:
        exit_code: what a shell would report: 127 not found, 126 not executable.
        text: one line for the person at the client.
    """

    default_fault = COMMAND_NOT_STARTED

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """The description of a command to start, and of how."""

    argv: Sequence[str]
    account: Account | None = None
    """The account to run it as; None runs it as the agent itself, with the agent's environment."""
    directory: str = "/"
    """The folder where it starts."""
    tty: bool = False
    """Whether it has a terminal of its own, which then is stdin, stdout and stderr."""
    columns: int = 80
    rows: int = 24
    """The size that a terminal starts with, in columns and rows."""
    stdin: bool = False
    """Whether it has an input; otherwise it reads an empty one."""


@dataclass(slots=True)
class Started:
    """A process and our ends of its pipes, as file descriptors; None where it has no such pipe or no terminal."""

    process: subprocess.Popen[bytes]
    stdin: int | None
    stdout: int
    stderr: int | None
    terminal: int | None


def unblock_signals_of_commands() -> None:
    """Lets commands start with every signal as it is by default. Once, in the main thread, before the first command.

    A daemon that was started by `nohup` or with `&` ignores SIGHUP or SIGINT, and what is ignored stays so through an
    exec: Ctrl-C would do nothing in a shell on this box. A signal that is handled, even by doing nothing, does not.
    """
    restored_by_subprocess = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - restored_by_subprocess:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def spawn(spec: CommandSpec) -> Started:
    """Starts the process; blocks until its exec has succeeded or failed.

    Raises:
        StartError: the program does not exist or cannot be executed.
    """
    try:
        return _spawn_on_terminal(spec) if spec.tty else _spawn_on_pipes(spec)
    except (OSError, ValueError) as error:
        raise _not_started(spec.argv[0], error) from error


def _do_nothing(_number: int, _frame: object) -> None:
    pass


def _spawn_on_pipes(spec: CommandSpec) -> Started:
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        stdin = stdin_end = None
        if spec.stdin:
            stdin, stdin_end = os.pipe()
            theirs.callback(os.close, stdin)
            ours.callback(os.close, stdin_end)
        stdout_end, stdout = os.pipe()
        ours.callback(os.close, stdout_end)
        theirs.callback(os.close, stdout)
        stderr_end, stderr = os.pipe()
        ours.callback(os.close, stderr_end)
        theirs.callback(os.close, stderr)
        process = _popen(spec, spec.argv, subprocess.DEVNULL if stdin is None else stdin, stdout, stderr)
        ours.pop_all()
        return Started(process, stdin_end, stdout_end, stderr_end, None)


def _spawn_on_terminal(spec: CommandSpec) -> Started:
    assert spec.account is not None
    terminal = open_terminal(spec.account, spec.columns, spec.rows)
    with contextlib.ExitStack() as ours:
        ours.callback(os.close, terminal.master)
        try:
            process = _popen(spec, terminal.command_line(spec.argv), terminal.slave, terminal.slave, terminal.slave)
            # One each, so that reading, writing and resizing end on their own.
            copies = os.dup(terminal.master), os.dup(terminal.master)
        finally:
            os.close(terminal.slave)
        ours.pop_all()
    return Started(process, copies[0], copies[1], None, terminal.master)


def _popen(spec: CommandSpec, argv: Sequence[str], stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    account = spec.account
    return subprocess.Popen(
        account.command_line(argv) if account else list(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        cwd=spec.directory,
        env=account.environment(spec.tty) if account else None,
        umask=0o022,
    )


def _not_started(program: str, error: OSError | ValueError) -> StartError:
    if isinstance(error, FileNotFoundError):
        return StartError(127, f'exec: "{program}": executable file not found')
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return StartError(126, f'exec: "{program}": {(reason or "cannot be executed").lower()}')
