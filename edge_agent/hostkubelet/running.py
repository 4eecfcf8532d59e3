"""Starts commands, and keeps all that are alive on behalf of the cloud, so that the agent leaves none behind."""

from __future__ import annotations

import asyncio
import contextlib

from edge_agent.hostkubelet.command import HANGUP_GRACE_S, STRAGGLER_GRACE_S, Command
from edge_agent.hostkubelet.spawn import CommandSpec, Started, StartError, spawn
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.core.wire.spoken import spoken_s

END_WAIT_S = HANGUP_GRACE_S + STRAGGLER_GRACE_S + 1.0
"""The most seconds that the end of all commands takes: after this only processes that the kernel itself cannot end are
left (dead network file systems)."""
START_WAIT_S = 10.0
"""The seconds to start a command: a program that is not executed by then is on a file system that does not answer."""
STARTING = 8
"""The most commands that are being started at once; a start takes milliseconds."""


class Running:
    """The commands that run: it starts them, and knows them until nothing of them is left."""

    def __init__(self) -> None:
        self._commands: set[Command] = set()
        self._starting: set[object] = set()
        self._started = asyncio.Event()
        self._closing = False
        # Users can name programs that hang; the agent's own (journalctl, systemctl) must not wait behind them.
        self._users = BlockingCalls("start", threads=STARTING, wait_s=START_WAIT_S)
        self._own = BlockingCalls("start own", threads=STARTING, wait_s=START_WAIT_S)

    async def start(self, spec: CommandSpec) -> Command:
        """Starts a command; cancelling this leaves nothing running.

        Raises:
            StartError: the program does not exist, cannot be executed, or was not started within START_WAIT_S.
        """
        token = object()

        def work() -> Started | StartError:
            self._starting.add(token)
            try:
                return spawn(spec)
            except StartError as error:
                return error

        def settled() -> None:
            self._starting.discard(token)
            self._started.set()

        def unwanted(started: Started | StartError) -> None:
            settled()
            if isinstance(started, Started):
                self._adopt(started).end()

        try:
            started = await (self._own if spec.account is None else self._users).run(work, unwanted=unwanted)
        except NotAnswering:
            raise StartError(
                126,
                f'exec: "{spec.argv[0]}": not started within {spoken_s(START_WAIT_S)}: a file system does not answer',
            ) from None
        settled()
        if isinstance(started, StartError):
            raise started
        return self._adopt(started)

    async def aclose(self) -> None:
        """Ends all commands, also those that are being started; takes up to END_WAIT_S where one is stubborn."""
        self._closing = True
        for command in self._commands:
            command.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S):
                while self._starting:
                    self._started.clear()
                    await self._started.wait()
                await asyncio.sleep(0)  # whoever asked for it takes it over
                for command in tuple(self._commands):
                    await command.wait_gone()

    # Internal

    def _adopt(self, started: Started) -> Command:
        command = Command(started, self._commands.discard)
        self._commands.add(command)
        if self._closing:
            command.hang_up()
        return command
