"""Reads the logs of systemd units through `journalctl` as a subprocess: its arguments, its output formats, its end."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import replace

import orjson

from edge_agent.hostkubelet.command import Command
from edge_agent.hostkubelet.lines import LineSplitter, rfc3339
from edge_agent.hostkubelet.log_options import LogOptions
from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.spawn import CommandSpec, StartError
from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.process.moments import moment
from tunnel.core.wire.faults import JOURNAL_UNREADABLE, NO_PREVIOUS_RUN
from tunnel.core.wire.spoken import spoken_s

FIRST_OUTPUT_WAIT_S = 0.5
"""The seconds that a followed log may be silent before its answer starts; a failure of journalctl comes sooner."""
ANSWER_WAIT_S = 25.0
"""The seconds that journalctl may look for the first line of a log; the cloud server gives up after 30 s."""
PREVIOUS_WAIT_S = 15.0
"""The seconds to find where the invocation before the latest one is; reading backwards takes long below a chatty
service."""
_INVOCATION = re.compile(rb'"(?:_SYSTEMD_)?INVOCATION_ID"\s*:\s*"([0-9a-f]{32})"')


def journal_arguments(unit: str, options: LogOptions, invocation: str | None = None) -> list[str]:
    """Returns the arguments of journalctl for a log request.

    Args:
        unit: full name of the unit; checked before (settings.py) to be no option and no pattern.
        options: what is wanted.
        invocation: the only run of the unit to read; None reads all of them.
    """
    arguments = ["--no-pager", "--quiet", "--all"]  # --all: long messages, and such with control characters, in full
    if options.timestamps:
        arguments += ["--output=json", "--output-fields=MESSAGE"]
    else:
        arguments.append("--output=cat")
    # Without a number journalctl shows all, but only ten lines when it follows.
    arguments.append(f"--lines={'all' if options.tail_lines is None else options.tail_lines}")
    if options.since is not None:
        arguments.append(f"--since=@{max(int(options.since.timestamp()), 0)}")
    if options.follow:
        arguments.append("--follow")
    if invocation is None:
        return [*arguments, f"--unit={unit}"]
    # The second half is what systemd itself said about that run.
    return [*arguments, f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}", "_PID=1"]


class Journal:
    """The box's journal."""

    def __init__(self, running: Running, program: str = "journalctl") -> None:
        self._running = running
        self._program = program

    async def open(self, unit: str, options: LogOptions) -> JournalLog:
        """Begins to read the log of a unit; the caller must close it.

        Raises:
            KubeletError: there is no journal or no previous run of the unit in it, or journalctl fails or is silent.
        """
        invocation = await self._previous_invocation(unit) if options.previous else None
        if invocation is not None:
            options = replace(options, follow=False)  # what is over has no more to come
        command = await self._start(journal_arguments(unit, options, invocation))
        log = JournalLog(command, parse=options.timestamps)
        try:
            await log.wait_for_first(FIRST_OUTPUT_WAIT_S if options.follow else ANSWER_WAIT_S)
            if log.waiting and not options.follow:
                raise KubeletError(
                    504, f"journalctl has not answered within {spoken_s(ANSWER_WAIT_S)}", JOURNAL_UNREADABLE
                )
        except BaseException:
            log.close()
            raise
        return log

    # Internal

    async def _start(self, arguments: list[str]) -> Command:
        try:
            return await self._running.start(CommandSpec(argv=[self._program, *arguments]))
        except StartError as error:
            raise KubeletError(
                503, f"this box has no journal that can be read: {error.text}", JOURNAL_UNREADABLE
            ) from error

    async def _previous_invocation(self, unit: str) -> str:
        """Returns the invocation id of a unit's run before its latest one.

        Raises:
            KubeletError: there is none, it was not found in time, or there is no journal.
        """
        arguments = ["--no-pager", "--quiet", "--output=json", "--output-fields=_SYSTEMD_INVOCATION_ID,INVOCATION_ID"]
        command = await self._start([*arguments, "--reverse", f"--unit={unit}"])
        latest: str | None = None
        splitter = LineSplitter()
        try:
            async with asyncio.timeout(PREVIOUS_WAIT_S):
                while chunk := await command.stdout.read():
                    for line in splitter.feed(chunk):
                        if found := _INVOCATION.search(line):
                            invocation = found[1].decode()
                            if latest is not None and invocation != latest:
                                return invocation
                            latest = invocation
                    await asyncio.sleep(0)
        except TimeoutError:
            text = f"the journal holds too much of {unit} to find its previous run within {PREVIOUS_WAIT_S:.0f} s"
            raise KubeletError(400, f"{text}; use --since instead of --previous", NO_PREVIOUS_RUN) from None
        finally:
            command.end()
        raise KubeletError(400, f"the journal has no previous run of {unit}", NO_PREVIOUS_RUN)


class JournalLog:
    """A log that is being read from the journal."""

    def __init__(self, command: Command, parse: bool) -> None:
        self._command = command
        self._parse = parse
        self._first: bytes | None = None

    @property
    def waiting(self) -> bool:
        """Returns whether nothing has come from journalctl yet, not even its end."""
        return self._first is None

    @property
    def silent(self) -> bool:
        """Returns whether the log has no line so far."""
        return not self._first

    async def wait_for_first(self, wait_s: float) -> None:
        """Waits at most `wait_s` seconds for output, so that a failure can still be an answer of its own.

        Raises:
            KubeletError: journalctl failed.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                self._first = await self._command.stdout.read()
        if self._first == b"":
            await self._check_end()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yields the log, ready for the client.

        Raises:
            KubeletError: journalctl failed.
        """
        splitter = LineSplitter()
        chunk = await self._command.stdout.read() if self._first is None else self._first
        while chunk:
            if not self._parse:
                yield chunk
            elif text := b"".join(map(_stamped, splitter.feed(chunk))):
                yield text
            chunk = await self._command.stdout.read()
        await self._check_end()

    def close(self) -> None:
        """Stops reading."""
        self._command.end()

    # Internal

    async def _check_end(self) -> None:
        exit_code = await self._command.wait()
        if exit_code == 0:
            return
        assert self._command.stderr is not None
        self._command.stderr.wait_no_more()
        text = (await self._command.stderr.read()).decode("utf-8", "replace").strip().partition("\n")[0]
        raise KubeletError(
            500, f"journalctl failed with exit code {exit_code}: {text or 'it gave no reason'}", JOURNAL_UNREADABLE
        )


def _stamped(line: bytes) -> bytes:
    """Returns one entry of `--output=json` as lines with their time; nothing for text that is no entry."""
    try:
        entry = orjson.loads(line)
        time = moment(int(entry["__REALTIME_TIMESTAMP"]) / 1_000_000)
    except (ValueError, KeyError, TypeError, OverflowError):  # the last one of a number too long to be divided
        return b""
    message = entry.get("MESSAGE")
    if isinstance(message, list):  # bytes that are no UTF-8, as numbers
        text = bytes(byte for byte in message if isinstance(byte, int) and 0 <= byte < 256)
    else:
        text = str(message or "").encode()
    prefix = rfc3339(time)
    return b"".join(prefix + part + b"\n" for part in text.split(b"\n"))
