"""Serves one log request: finds the source behind a container's name, and streams it to the client within its limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from edge_agent.hostkubelet.file_log import FileLog
from edge_agent.hostkubelet.journal import Journal
from edge_agent.hostkubelet.log_file import LogFile
from edge_agent.hostkubelet.log_options import LogOptions
from edge_agent.hostkubelet.pod import Container, Kind
from edge_agent.hostkubelet.status import KubeletError
from edge_agent.hostkubelet.units import Units
from tunnel.aio.http.http1 import ServerConnection
from tunnel.core.wire.faults import NO_PREVIOUS_RUN, UNIT_UNKNOWN


class OpenLog(Protocol):
    """A log that is being read."""

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yields the log, piece by piece; ends with the log, or never when it is followed."""
        ...

    def close(self) -> None:
        """Stops reading, at any time."""
        ...


class EmptyLog:
    """A log without a line, as of a container that runs and is silent."""

    def __init__(self, follow: bool) -> None:
        """Makes an empty log that ends at once, or never when it is followed."""
        self._follow = follow

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yields nothing."""
        if self._follow:
            await asyncio.Event().wait()
        nothing: tuple[bytes, ...] = ()
        for chunk in nothing:
            yield chunk

    def close(self) -> None:
        """Does nothing, since nothing is open."""


class ClientGone(Exception):
    """The client of a followed log left, which nothing else would tell while the log is silent."""


class LogBroken(Exception):
    """A log ended in the middle, after its answer had begun."""


class Logs:
    """The logs that the box offers."""

    def __init__(self, journal: Journal, units: Units, files: dict[str, LogFile]) -> None:
        """Takes the sources of the logs.

        Args:
            journal: has the logs of units.
            units: knows whether there is a unit of a name.
            files: the log files by the path that was configured.
        """
        self._journal = journal
        self._units = units
        self._files = files

    async def open(self, container: Container, options: LogOptions) -> OpenLog:
        """Begins to read a container's log; the caller must close it.

        Raises:
            KubeletError: there is no such unit or file, it cannot be read, or it has not what the options want.
        """
        if container.kind is Kind.HOST and options.previous:
            raise KubeletError(
                400, "the host itself has no previous run: choose a unit of this box with -c", NO_PREVIOUS_RUN
            )
        if container.kind is Kind.HOST or options.errors_only:
            return EmptyLog(options.follow)
        if container.kind is Kind.UNIT:
            return await self._open_journal(container.source, options)
        log = FileLog(self._files[container.source], options)
        try:
            await log.open()
        except BaseException:
            log.close()
            raise
        return log

    # Internal

    async def _open_journal(self, unit: str, options: LogOptions) -> OpenLog:
        log = await self._journal.open(unit, options)
        try:
            # The journal may still have what a unit wrote that is gone; without a line of it, it is a wrong name.
            if log.silent and await self._units.is_unknown(unit):
                raise KubeletError(
                    404, f"systemd knows no unit {unit} on this box, and the journal has nothing of it", UNIT_UNKNOWN
                )
        except BaseException:
            log.close()
            raise
        return log


async def send_log(
    connection: ServerConnection, log: OpenLog, options: LogOptions, sent: Callable[[int], None]
) -> None:
    """Answers a request with a log.

    Args:
        connection: the connection to the client.
        log: the log; the caller closes it.
        options: what the client asks for.
        sent: is told how many bytes went out each time.

    Raises:
        LogBroken: the log cannot be read any further.
        ClientGone, StreamError: nobody wants it any more.
    """
    await connection.start(200, [("content-type", "text/plain")])
    if not options.follow:
        await _send_chunks(connection, log, options.limit_bytes, sent)
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(_watch(connection))
            await _send_chunks(connection, log, options.limit_bytes, sent)
            watcher.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _send_chunks(
    connection: ServerConnection, log: OpenLog, limit_bytes: int | None, sent: Callable[[int], None]
) -> None:
    sent_bytes = 0
    try:
        async with contextlib.aclosing(log.chunks()) as chunks:
            async for chunk in chunks:
                part = chunk if limit_bytes is None else chunk[: limit_bytes - sent_bytes]
                await connection.send(part)
                sent_bytes += len(part)
                sent(len(part))
                if sent_bytes == limit_bytes:
                    break
                await asyncio.sleep(0)  # both ends may be so quick that nothing ever waits
    except KubeletError as error:
        raise LogBroken(error.text) from error
    await connection.finish()


async def _watch(connection: ServerConnection) -> None:
    await connection.wait_client_gone()
    raise ClientGone
