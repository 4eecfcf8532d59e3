"""Logs that are files, for a client: which options a file can honour, and the loop that reads it in threads.

A file does not say when its lines were written. So `--since` is refused, and `--timestamps` works only where the
time is known: for lines that arrive while we follow (`--follow --tail=0`), to a quarter of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from edge_agent.hostkubelet.lines import LineStamper
from edge_agent.hostkubelet.log_file import READ_BYTES, FollowedFile, LogFile
from edge_agent.hostkubelet.log_options import LogOptions
from edge_agent.hostkubelet.status import KubeletError

POLL_S = 0.25
"""How late a line may come; looking costs two system calls."""


def check_file_options(file: LogFile, options: LogOptions) -> None:
    """Refuse what a file cannot honour rather than answer something else.

    Raises:
        KubeletError: it is asked for times or for a previous run.
    """
    if options.previous:
        raise KubeletError(
            400, f"{file.path} is a file: it has no previous run, name a rotated file in [host] files instead"
        )
    if options.since is not None:
        raise KubeletError(
            400, f"{file.path} is a file: when its lines were written is not known, use --tail instead of --since"
        )
    if options.timestamps and not (options.follow and options.tail_lines == 0):
        raise KubeletError(
            400,
            f"{file.path} is a file: when its lines were written is not known, "
            "--timestamps works only with --follow --tail=0",
        )


class FileLog:
    """A log file that is being read for a client."""

    def __init__(self, file: LogFile, options: LogOptions) -> None:
        self._followed = FollowedFile(file)
        self._file = file
        self._options = options
        self._present_bytes = 0
        self._closing: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Open the file.

        Raises:
            KubeletError: it cannot be opened, or cannot honour the options.
        """
        check_file_options(self._file, self._options)
        self._present_bytes = await asyncio.to_thread(self._followed.open, self._options.tail_lines)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The log: what is in the file now and, where asked for, all that comes."""
        stamper = LineStamper() if self._options.timestamps else None
        while True:
            wanted = READ_BYTES if self._options.follow else min(READ_BYTES, self._present_bytes)
            chunk = await asyncio.to_thread(self._followed.read, wanted) if wanted else b""
            self._present_bytes -= len(chunk)
            if chunk:
                yield chunk if stamper is None else stamper.stamp(chunk, datetime.now(UTC))
            elif self._options.follow:
                await asyncio.sleep(POLL_S)
            else:
                return

    def close(self) -> None:
        """Stop reading."""
        # In a thread: a read that hangs (network file system) holds it.
        self._closing = asyncio.get_running_loop().run_in_executor(None, self._followed.close)
