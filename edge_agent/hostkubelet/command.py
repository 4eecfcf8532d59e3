"""A running command: its pipes, its exit code, and its end together with its descendants.

How it is started is in spawn.py, what is carried through its pipes in exec_session.py and journal.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from edge_agent.hostkubelet.exit_watch import watch_exit
from edge_agent.hostkubelet.pipes import PipeReader, PipeWriter
from edge_agent.hostkubelet.spawn import Started
from edge_agent.hostkubelet.terminal import foreground_group, set_size

HANGUP_GRACE_S = 5.0
"""The seconds from SIGHUP to SIGKILL: enough for an editor to save its swap file."""
STRAGGLER_GRACE_S = 0.5
"""The seconds that are left to the rest of the process group once the command itself has obeyed."""


class Command:
    """A command that was started.

    Attributes:
        pid: its process id, which is also that of its process group.
        stdin: its input, None where it has none.
        stdout: its output; with a terminal all of it.
        stderr: its error output, None with a terminal.
    """

    def __init__(self, started: Started, on_gone: Callable[[Command], None]) -> None:
        """Watches over a process that was just started; needs the running loop.

        Args:
            started: the process; its descriptors are owned from here on.
            on_gone: called once, when `wait_gone` returns.
        """
        self.pid = started.process.pid
        self.stdin = None if started.stdin is None else PipeWriter(started.stdin)
        self.stdout = PipeReader(started.stdout)
        self.stderr = None if started.stderr is None else PipeReader(started.stderr)
        self._process = started.process
        self._on_gone = on_gone
        self._terminal = started.terminal
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._gone = asyncio.Event()
        self._given_up = False
        self._killer: asyncio.TimerHandle | None = None
        watch_exit(self.pid, self._exited)

    async def wait(self) -> int:
        """Waits for the end of the command, and returns its exit code; 128 + n where signal n ended it."""
        return await asyncio.shield(self._exit)

    async def wait_gone(self) -> None:
        """Waits until the command has ended and, after `hang_up`, its process group too."""
        await self._gone.wait()

    def resize(self, columns: int, rows: int) -> None:
        """Gives the command's terminal another size; without a terminal nothing happens."""
        if self._terminal is not None:
            set_size(self._terminal, columns, rows)

    def end(self) -> None:
        """Gives the command up, whatever it is doing: one that still runs is hung up. Never blocks; idempotent."""
        self._given_up = True
        if self._exit.done():
            self._close_pipes()
            return
        self.hang_up()
        # It may still say what it does about that; without a reader it would die of SIGPIPE while it cleans up.
        if self.stdin is not None:
            self.stdin.close()
        self.stdout.discard()
        if self.stderr is not None:
            self.stderr.discard()

    def hang_up(self) -> None:
        """Tells the command and all of its process group to end: SIGHUP now, SIGKILL after a grace. Idempotent.

        Its output can still be read. After the command ended by itself this does nothing: what it left running on
        purpose stays, as after `ssh`.
        """
        if self._killer is not None or self._exit.done():
            return
        groups = [self.pid]
        if self._terminal is not None and (foreground := foreground_group(self._terminal)) not in (None, self.pid):
            groups.append(foreground)
        for group in groups:
            self._signal(group, signal.SIGHUP)
            self._signal(group, signal.SIGCONT)  # a stopped one could not obey
        self._killer = self._loop.call_later(HANGUP_GRACE_S, self._kill, groups)

    # Internal

    def _close_pipes(self) -> None:
        if self.stdin is not None:
            self.stdin.close()
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def _exited(self, exit_code: int) -> None:
        if self._killer is None:
            self._reap()
        else:
            self._killer.cancel()
            self._killer = self._loop.call_later(STRAGGLER_GRACE_S, self._kill, [self.pid])
        self._exit.set_result(exit_code)

    def _kill(self, groups: list[int]) -> None:
        for group in groups:
            self._signal(group, signal.SIGKILL)
        if self._exit.done():
            self._reap()  # not before: as long as it is a zombie, nobody else can get its group's number

    def _signal(self, group: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # ended, or became somebody else (sudo)
            if group == self.pid or os.getsid(group) == self.pid:
                os.killpg(group, number)

    def _reap(self) -> None:
        self._process.wait()
        if self._given_up:
            self._close_pipes()
        self._gone.set()
        self._on_gone(self)
