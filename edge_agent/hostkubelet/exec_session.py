"""Runs one exec: carries a command's pipes or terminal over the channels of a WebSocket, and delivers its exit status.

Memory is bounded: each direction holds one read of a pipe and what INPUT_BYTES allows; the rest waits in the kernel, so
that a client that stops reading stops the command. Which commands may run is decided in server.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from edge_agent.hostkubelet.channels import Channel, ChannelSocket, Input, InputEnd, Resize
from edge_agent.hostkubelet.command import Command
from edge_agent.hostkubelet.input_queue import InputQueue
from edge_agent.hostkubelet.pipes import PipeReader
from edge_agent.hostkubelet.recordings import NotRecorded, Recording
from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.spawn import CommandSpec, StartError
from edge_agent.hostkubelet.status import exit_status, failed_status
from edge_agent.hostkubelet.terminal import END_OF_INPUT
from tunnel.core.wire.errors import StreamError

INPUT_BYTES = 256 * 1024
"""The bytes of input that may wait for the command before the client is stopped; until then a hang-up or a resize is
still noticed."""
FIRST_SIZE_WAIT_S = 0.2
"""The seconds that a command on a terminal waits for the client's size, so that it starts with the right one. Input
does not end the wait: kubectl sends both at once, in any order."""
OUTPUT_END_WAIT_S = 0.5
"""The seconds after the exit in which output of processes is awaited that the command left behind with its pipes."""
CLOSE_WAIT_S = 2.0
"""The seconds that the client has to end the connection once it was told the exit status."""


class ClientGone(Exception):
    """The client ended the connection before the command was done."""


@dataclass(slots=True)
class ExecResult:
    """The outcome of an exec, for the audit record."""

    exit_code: int | None = None
    """The exit code that the client was told; None: it was not delivered, because the client left."""
    lost: NotRecorded | None = None
    """The error for which it was ended because it could not be recorded; None when it was not."""
    received_bytes: int = 0
    sent_bytes: int = 0


class ExecSession:
    """One command that runs for one client."""

    def __init__(
        self,
        socket: ChannelSocket,
        spec: CommandSpec,
        outputs: Collection[Channel],
        running: Running,
        recording: Recording | None = None,
    ) -> None:
        """Prepares the session; nothing runs before `run`.

        Args:
            socket: the channels to the client.
            spec: what to run.
            outputs: the channels that the client wants to hear; what is written to others is read and dropped.
            running: where commands are started.
            recording: takes all that the command writes, before anybody sees it; None: it is not recorded.
        """
        self.result = ExecResult()
        self._socket = socket
        self._spec = spec
        self._outputs = outputs
        self._running = running
        self._recording = recording
        self._input = InputQueue(INPUT_BYTES)
        self._size: Resize | None = None
        self._has_size = asyncio.Event()
        self._client_ended = asyncio.Event()
        self._command: Command | None = None

    async def run(self) -> None:
        """Runs the command to its end, or ends it when the client goes away or it cannot be recorded any more."""
        lost: NotRecorded | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._receive()), tasks.create_task(self._socket.keep_alive())]
                await self._run_command()
                for helper in helpers:
                    helper.cancel()
        except* (ClientGone, StreamError):
            pass  # `result.exit_code` stays None, which says it
        except* NotRecorded as group:
            lost = next(iter(_leaves(group)))
        finally:
            if self._command is not None:
                self._command.end()
        if lost is not None:
            self.result.lost = lost
            await self._tell(lost)

    # Internal

    async def _run_command(self) -> None:
        # Clients take the first message, however empty, as the sign that the channels are open.
        await self._socket.send(Channel.STDOUT, b"")
        spec = await self._sized() if self._spec.tty else self._spec
        try:
            command = self._command = await self._running.start(spec)
        except StartError as error:
            # A terminal has no stderr of its own, and is not ours to translate line ends.
            channel, line_end = (Channel.STDOUT, "\r\n") if spec.tty else (Channel.STDERR, "\n")
            await self._write(channel, f"{error.text}{line_end}".encode())
            await self._deliver(error.exit_code)
            return
        if self._size is not None and (self._size.columns, self._size.rows) != (spec.columns, spec.rows):
            await self._resize(command, self._size)  # it changed meanwhile
        await self._deliver(await self._carry(command))

    async def _sized(self) -> CommandSpec:
        """Returns the command with the size of the client's terminal, if that comes in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SIZE_WAIT_S):
                await self._has_size.wait()
        size = self._size
        if size is not None and self._recording is not None:
            await self._recording.sized(size.columns, size.rows)
        return self._spec if size is None else replace(self._spec, columns=size.columns, rows=size.rows)

    async def _resize(self, command: Command, size: Resize) -> None:
        command.resize(size.columns, size.rows)
        if self._recording is not None and self._spec.tty:
            await self._recording.resize(size.columns, size.rows)

    async def _carry(self, command: Command) -> int:
        """Carries bytes both ways until the command has ended and all that it wrote was sent; returns its exit code."""
        async with asyncio.TaskGroup() as tasks:
            feeder = tasks.create_task(self._feed(command))
            readers = {Channel.STDOUT: command.stdout}
            if command.stderr is not None:
                readers[Channel.STDERR] = command.stderr
            pumps = [tasks.create_task(self._pump(reader, channel)) for channel, reader in readers.items()]
            exit_code = await command.wait()
            feeder.cancel()
            await self._input.discard()
            await asyncio.wait(pumps, timeout=OUTPUT_END_WAIT_S)
            for reader in readers.values():
                reader.wait_no_more()
        return exit_code

    async def _tell(self, lost: NotRecorded) -> None:
        """Tells the client why its command was ended, if it listens."""
        text = f"the command was ended, for it could not be recorded any more: {lost}"
        with contextlib.suppress(StreamError, TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._socket.send(Channel.ERROR, failed_status(text, lost.fault))
                await self._socket.close()
                async for _ in self._socket.events():
                    pass  # what the client sent meanwhile

    async def _deliver(self, exit_code: int) -> None:
        await self._input.discard()
        await self._socket.send(Channel.ERROR, exit_status(exit_code))
        self.result.exit_code = exit_code
        await self._socket.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._client_ended.wait()

    async def _receive(self) -> None:
        async for event in self._socket.events():
            match event:
                case Input(data):
                    self.result.received_bytes += len(data)
                    await self._input.put(data)
                case InputEnd():
                    await self._input.end()
                case Resize():
                    self._size = event
                    self._has_size.set()
                    if self._command is not None:
                        await self._resize(self._command, event)
        self._client_ended.set()
        if self.result.exit_code is None:
            raise ClientGone

    async def _feed(self, command: Command) -> None:
        if command.stdin is None:
            await self._input.discard()
            return
        try:
            while data := await self._input.get():
                await command.stdin.write(data)
            if self._spec.tty:
                await command.stdin.write(END_OF_INPUT)
        except BrokenPipeError:
            await self._input.discard()
        if not self._spec.tty:
            command.stdin.close()

    async def _pump(self, reader: PipeReader, channel: Channel) -> None:
        while data := await reader.read():
            await self._write(channel, data)
            await asyncio.sleep(0)  # neither end needs to wait where both are quick, and others want their turn

    async def _write(self, channel: Channel, data: bytes) -> None:
        """Records what a command wrote, whether or not the client wants it, and sends it to a client that does."""
        if self._recording is not None:
            await self._recording.output(channel, data, terminal=self._spec.tty)
        if channel in self._outputs:
            await self._socket.send(channel, data)
            self.result.sent_bytes += len(data)


def _leaves(group: BaseExceptionGroup[NotRecorded]) -> Iterator[NotRecorded]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
