"""Reads log files for a client: what a file can tell of what is asked for, and the loop that follows it.

A file does not say when its lines were written. Lines that arrive while it is followed have the time at which they were
seen; those that are there already the time that they say themselves, else that of the line before them, else that of
the file. `--since` goes by the same (line_times.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from edge_agent.hostkubelet.change_watch import ChangeWatch
from edge_agent.hostkubelet.followed_file import READ_BYTES, FollowedFile
from edge_agent.hostkubelet.line_times import LineTimes
from edge_agent.hostkubelet.lines import LineStamper
from edge_agent.hostkubelet.log_file import LogFile
from edge_agent.hostkubelet.log_options import LogOptions
from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.process.blocking import NotAnswering
from tunnel.core.wire.faults import NO_PREVIOUS_RUN

T = TypeVar("T")

POLL_S = 0.25
"""The most seconds that a line may come late where a file system does not tell of changes; a new file is noticed so
late everywhere."""


class FileLog:
    """A log file that is being read for a client."""

    def __init__(self, file: LogFile, options: LogOptions) -> None:
        """Prepares the reading; needs the running loop, and the caller must call `close` at the end."""
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._options = options
        self._watch = ChangeWatch() if options.follow else None
        self._followed = FollowedFile(file, self._watch)
        self._present_bytes = 0

    async def open(self) -> None:
        """Opens the file.

        Raises:
            KubeletError: it cannot be opened, its file system does not answer, or it is asked for a previous run.
        """
        if self._options.previous:
            raise KubeletError(
                400,
                f"{self._file.path} is a file: it has no previous run, name a rotated file in [host] files instead",
                NO_PREVIOUS_RUN,
            )
        options = self._options
        self._present_bytes = await self._call(lambda: self._followed.open(options.tail_lines, options.since))

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yields the log: what is in the file now and, where asked for, all that comes later.

        Raises:
            KubeletError: its file system does not answer any more.
        """
        stamper = LineStamper() if self._options.timestamps else None
        async with contextlib.aclosing(self._present()) as present:
            times = _PresentTimes(self._followed.times, self._followed.first_time)
            async for chunk in present:
                yield chunk if stamper is None else stamper.stamp(chunk, times.of)
        while self._watch is not None:
            chunk = await self._call(self._followed.read)
            if chunk:
                yield chunk if stamper is None else stamper.stamp(chunk, lambda _: datetime.now(UTC))
            else:
                await self._watch.changed(POLL_S)

    def close(self) -> None:
        """Stops reading; may be called while a read hangs, and closes the file behind it."""
        self._file.calls.post(self._close)  # behind a read that hangs: it uses what is closed

    # Internal

    async def _present(self) -> AsyncGenerator[bytes]:
        """Yields what there was at the start; in whole lines where times are wanted: a cut line has a cut time."""
        left_bytes, rest = self._present_bytes, b""
        while left_bytes > 0:
            wanted = min(READ_BYTES, left_bytes)
            chunk = await self._call(partial(self._followed.read, wanted))
            if not chunk:
                break  # emptied meanwhile
            left_bytes -= len(chunk)
            if self._options.timestamps:
                chunk = rest + chunk
                end = chunk.rfind(b"\n") + 1 if left_bytes > 0 else len(chunk)
                end = end or len(chunk)  # a line longer than all that is read at a time
                chunk, rest = chunk[:end], chunk[end:]
            yield chunk
        if rest:
            yield rest

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._file.calls.run(work)
        except NotAnswering:
            raise self._file.hanging from None

    def _close(self) -> None:
        self._followed.close()
        if self._watch is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before
                self._loop.call_soon_threadsafe(self._watch.close)


class _PresentTimes:
    """The times of lines that were there before anybody looked."""

    def __init__(self, times: LineTimes, first: datetime) -> None:
        self._times = times
        self._last = first

    def of(self, line: bytes) -> datetime:
        """Returns a line's own time, else that of the line before, else the file's."""
        self._last = self._times.of(line) or self._last
        return self._last
