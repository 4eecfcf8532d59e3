"""Makes pipes and terminals of commands awaitable readers and writers, without a transport's buffer in between.

What the client does not take stays in the kernel's pipe, where it stops the command that writes.
"""

from __future__ import annotations

import asyncio
import os

READ_BYTES = 2 * (32 * 1024 - 1)
"""The most bytes of one read: what two messages of an exec carry, and but for two bytes what a pipe holds."""
PIPE_BYTES = 64 * 1024
"""The bytes that a pipe of ours can hold (pipe(7)); a terminal holds less."""


class PipeReader:
    """The end of a pipe, or of a terminal, that a command writes to. It owns its file descriptor."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._waiting: asyncio.Future[None] | None = None
        self._last_bytes: int | None = None

    def read_nowait(self) -> bytes | None:
        """Returns what there is now: `b""` is the end, None means that nothing is there yet."""
        if self._fd < 0:
            return b""
        try:
            return os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # EIO: nobody has the terminal open any more
            return b""

    async def read(self) -> bytes:
        """Waits for bytes and returns them; `b""` is the end. Cancelling it loses none."""
        while self._last_bytes is None:
            if (data := self.read_nowait()) is not None:
                return data
            await self._until_readable()
        # More than a full pipe can only be from processes that write on after the end.
        data = (self.read_nowait() or b"") if self._last_bytes < PIPE_BYTES else b""
        self._last_bytes += len(data)
        return data

    def wait_no_more(self) -> None:
        """Says that the command has ended: `read` gives what is in the pipe, then `b""`, whoever else has it open."""
        self._last_bytes = 0
        if self._waiting is not None:
            _settle(self._waiting)

    def discard(self) -> None:
        """Throws away what comes from now on, until `close`; no `read` may be waiting."""
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._throw_away)

    def close(self) -> None:
        """Gives up the pipe; a command that goes on writing gets SIGPIPE."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _throw_away(self) -> None:
        if self.read_nowait() == b"":
            asyncio.get_running_loop().remove_reader(self._fd)

    async def _until_readable(self) -> None:
        loop = asyncio.get_running_loop()
        fd, ready = self._fd, loop.create_future()
        self._waiting = ready
        loop.add_reader(fd, _settle, ready)
        try:
            await ready
        finally:
            self._waiting = None
            loop.remove_reader(fd)


class PipeWriter:
    """The end of a pipe, or of a terminal, that a command reads from. It owns its file descriptor."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def write(self, data: bytes) -> None:
        """Hands over all bytes, and waits while the command does not read.

        Raises:
            BrokenPipeError: the command will not read any more.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._until_writable()
            except OSError as error:
                raise BrokenPipeError("the command reads no more input") from error

    def close(self) -> None:
        """Lets the command see the end of its input."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    async def _until_writable(self) -> None:
        loop = asyncio.get_running_loop()
        fd, ready = self._fd, loop.create_future()
        loop.add_writer(fd, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_writer(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
