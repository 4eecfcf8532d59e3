"""All commands that are alive on behalf of the cloud, so that the agent leaves none behind."""

from __future__ import annotations

import asyncio
import contextlib

from edge_agent.hostkubelet.command import HANGUP_GRACE_S, STRAGGLER_GRACE_S, Command
from edge_agent.hostkubelet.spawn import CommandSpec, Started, spawn

END_WAIT_S = HANGUP_GRACE_S + STRAGGLER_GRACE_S + 1.0
"""After this only processes that the kernel itself cannot end are left (dead network file systems)."""


class Running:
    """Starts commands and knows them until nothing of them is left."""

    def __init__(self) -> None:
        self._commands: set[Command] = set()
        self._starting: set[asyncio.Future[Started]] = set()
        self._closing = False

    async def start(self, spec: CommandSpec) -> Command:
        """Start a command; cancelling this leaves nothing running.

        Raises:
            StartError: the program does not exist or cannot be executed.
        """
        starting = asyncio.get_running_loop().run_in_executor(None, spawn, spec)
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        try:
            return self._adopt(await asyncio.shield(starting))
        except asyncio.CancelledError:
            starting.add_done_callback(self._end_unwanted)
            raise

    async def aclose(self) -> None:
        """End all of them, those that are just being started too; takes up to `END_WAIT_S` where one is stubborn."""
        self._closing = True
        for command in self._commands:
            command.hang_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S):
                while self._starting:
                    await asyncio.wait(self._starting)
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

    def _end_unwanted(self, starting: asyncio.Future[Started]) -> None:
        """Who wanted the command was cancelled while it was being started."""
        if not starting.cancelled() and starting.exception() is None:
            self._adopt(starting.result()).end()
