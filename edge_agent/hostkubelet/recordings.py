"""Records what commands write, in files of their own. Nothing is shown to anybody that was not recorded before.

One thread does all that touches the folder, in its turn, so that nothing of it waits in the event loop, and what is
counted of the folder is right. Each event is written whole or not at all: what a crash leaves can be played.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge_agent.hostkubelet.settings import RecordingSettings
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.core.wire.asciicast import MAX_HEADER_TEXT_CHARS, OUTPUT, Event, Header, resized
from tunnel.core.wire.faults import NOT_RECORDED, FaultError
from tunnel.core.wire.spoken import spoken_s

T = TypeVar("T")

WAIT_S = 5.0
"""The seconds that a write may take; a disk that takes longer is one that cannot be written."""
SETTLE_S = 2.0
"""The seconds that the end of the agent waits for the last recordings to be on the disk."""
SUFFIX = ".cast"
BLOCK_BYTES = 4096
"""The bytes that the smallest file takes on a disk. At least so much is counted for each, which bounds the number of
files too."""
SLACK = 64
"""The part of the limit, as 1/64, that is freed at once when room is needed, so that the folder is read rarely."""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


class NotRecorded(FaultError):
    """Something must be recorded and cannot be; the text says why."""

    default_fault = NOT_RECORDED


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording in the folder."""

    id: str
    bytes: int
    header: Header
    seconds: float
    """The seconds from its beginning to the last write."""


class Recording:
    """One command that is being recorded. Its methods raise NotRecorded when something cannot be written."""

    def __init__(self, keeper: Recordings, number: str, fd: int, header: Header, who: str) -> None:
        self.id = number
        self._who = who
        self._keeper = keeper
        self._fd = fd
        self._header = header
        self._began_s = asyncio.get_running_loop().time()
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._bytes = 0
        self._events = 0
        self._closed = False

    async def sized(self, columns: int, rows: int) -> None:
        """Writes the size that the terminal has at its beginning into the header.

        A size of 0 is ignored, and so is one that comes after the first event.
        """
        if self._events or not columns or not rows:
            return
        self._header = replace(self._header, columns=columns, rows=rows)
        await self._keeper.run(self._write_header)

    async def output(self, channel: int, data: bytes, *, terminal: bool) -> None:
        """Records what was written on a channel, whose characters may be split anywhere.

        Args:
            channel: any number that tells one stream of characters from another.
            data: the bytes.
            terminal: whether a terminal has made its line ends already.
        """
        decoder = self._decoders.get(channel)
        if decoder is None:
            decoder = self._decoders[channel] = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        if text:
            await self._record(Event(self._at_s(), OUTPUT, text if terminal else text.replace("\n", "\r\n")))

    async def resize(self, columns: int, rows: int) -> None:
        """Records a new size of the terminal. A size of 0 is ignored."""
        if columns and rows:
            await self._record(resized(self._at_s(), columns, rows))

    def close(self) -> None:
        """Ends the recording, and has it brought to the disk; waits for nothing. Idempotent."""
        if not self._closed:
            self._closed = True
            self._keeper.end(self.id, self._finish)

    # Internal

    def _at_s(self) -> float:
        return asyncio.get_running_loop().time() - self._began_s

    async def _record(self, event: Event) -> None:
        self._events += 1
        await self._keeper.run(partial(self._append, event.line()))

    def _write_header(self) -> None:
        line = self._header.line()
        self._keeper.check(self._bytes, len(line), self._who)
        os.ftruncate(self._fd, 0)
        self._bytes = 0
        self._append(line)

    def _append(self, line: bytes) -> None:
        """Appends a line to the file. It runs in the thread."""
        self._keeper.check(self._bytes, len(line), self._who)
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._bytes)  # no half line stays
            raise
        self._keeper.grown(self._bytes, len(line))
        self._bytes += len(line)

    def _finish(self) -> None:
        with contextlib.suppress(OSError):  # what was recorded is there; a disk that breaks now cannot be helped
            os.fsync(self._fd)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if not self._bytes:  # there was no room for its first line, and its name is to take none either
            self._keeper.remove(self.id)


class Recordings:
    """The folder of all recordings of a box."""

    def __init__(self, settings: RecordingSettings) -> None:
        """Does not touch the folder yet: it is read when something is recorded, and made then."""
        self.settings = settings
        self._calls = BlockingCalls("recordings", wait_s=WAIT_S)
        self._total_bytes: int | None = None
        """The bytes that all files take; None when the folder was not read yet."""
        self._open: set[str] = set()

    # Public

    async def begin(self, who: str, header: Header) -> Recording:
        """Begins a recording of somebody's: its file is there, with its header, whose title is `title_of` them.

        Raises:
            NotRecorded: it cannot be written.
        """
        number, fd = await self.run(
            self._create, unwanted=lambda made: Recording(self, made[0], made[1], header, who).close()
        )
        recording = Recording(self, number, fd, header, who)
        try:
            await self.run(recording._write_header)
        except BaseException:
            recording.close()
            raise
        return recording

    async def listed(self) -> list[Recorded]:
        """Returns all recordings, the oldest first, those that are still written among them.

        Raises:
            NotRecorded: the folder cannot be read.
        """
        return await self.run(self._list)

    async def opened(self, number: str) -> int | None:
        """Returns the descriptor of a recording's file, which the caller must close; None where there is none.

        Raises:
            NotRecorded: it cannot be read.
        """
        if not _ID.fullmatch(number):
            return None
        return await self.run(partial(self._open_file, number), unwanted=_close)

    async def read(self, fd: int, count: int) -> bytes:
        """Returns the next bytes of a file; empty at its end.

        Raises:
            NotRecorded: it cannot be read.
        """
        return await self.run(partial(os.read, fd, count))

    async def aclose(self) -> None:
        """Waits until what was recorded is on the disk, for SETTLE_S at most."""
        with contextlib.suppress(TimeoutError, NotAnswering):
            async with asyncio.timeout(SETTLE_S):
                await self._calls.run(lambda: None)

    # For its recordings

    async def run(self, work: Callable[[], T], *, unwanted: Callable[[T], object] | None = None) -> T:
        """Runs some work in the thread, and returns its result. `unwanted` is called with a result that comes too late.

        Raises:
            NotRecorded: it failed, or takes too long.
        """
        try:
            return await self._calls.run(work, unwanted=unwanted)
        except NotAnswering:
            text = f"the folder of recordings does not answer within {spoken_s(WAIT_S)}"
            raise NotRecorded(text) from None
        except OSError as error:
            raise NotRecorded(f"the recording cannot be written: {(error.strerror or str(error)).lower()}") from error

    def end(self, number: str, finish: Callable[[], None]) -> None:
        """Makes the thread finish a recording, after all its work before. It does not wait for that."""

        def work() -> None:
            finish()
            self._open.discard(number)

        self._calls.post(work)

    def check(self, file_bytes: int, more_bytes: int, who: str) -> None:
        """Makes room for more of a file of somebody's; in the thread.

        Raises:
            NotRecorded: there is none.
        """
        limits = self.settings
        if file_bytes + more_bytes > limits.max_file_bytes:
            raise NotRecorded(
                f"the recording has reached the {limits.max_file_bytes} bytes of [host.recording] max_file_bytes"
            )
        needed = _charged(file_bytes + more_bytes) - _charged(file_bytes)
        if needed and self._total() + needed > limits.max_total_bytes:
            self._make_room(needed, who)

    def grown(self, file_bytes: int, more_bytes: int) -> None:
        """Counts what was written to a file. It runs in the thread."""
        self._total_bytes = self._total() + _charged(file_bytes + more_bytes) - _charged(file_bytes)

    def remove(self, number: str) -> None:
        """Removes a file, if it is there. It runs in the thread."""
        with contextlib.suppress(OSError):
            (self._folder() / f"{number}{SUFFIX}").unlink()

    # Internal, in the thread

    def _folder(self) -> Path:
        if self.settings.folder is None:
            raise NotRecorded("this box has no folder for recordings")
        return self.settings.folder

    def _create(self) -> tuple[str, int]:
        folder = self._folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + os.urandom(4).hex()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(folder / f"{number}{SUFFIX}", flags, 0o600)
        self._open.add(number)
        return number, fd

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self._folder()) as entries:
                for entry in entries:
                    number = entry.name.removesuffix(SUFFIX)
                    if _ID.fullmatch(number) and number != entry.name and entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            yield number, entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # nothing was recorded yet

    def _total(self) -> int:
        if self._total_bytes is None:
            self._total_bytes = sum(_charged(about.st_size) for _, about in self._files())
        return self._total_bytes

    def _make_room(self, needed: int, who: str) -> None:
        """Removes the oldest of the same user: nobody makes what others did go by doing much."""
        limit = self.settings.max_total_bytes
        # Somebody may have removed some, so that what is counted is looked at before anything is done about it.
        found = sorted(self._files(), key=lambda one: one[0])
        self._total_bytes = sum(_charged(about.st_size) for _, about in found)
        if self._total_bytes + needed <= limit:
            return
        if self.settings.on_full == "oldest":
            for number, about in found:
                if number in self._open or not self._is_of(number, who):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    (self._folder() / f"{number}{SUFFIX}").unlink()
                self._total_bytes -= _charged(about.st_size)
                if self._total_bytes + needed <= limit - limit // SLACK:
                    return
        if self._total_bytes + needed > limit:
            text = f"all recordings together have reached the {limit} bytes of [host.recording] max_total_bytes"
            if self.settings.on_full == "oldest":
                text += f", and those that are over of {who} do not make room enough"
            raise NotRecorded(text)

    def _list(self) -> list[Recorded]:
        found = []
        for number, about in sorted(self._files(), key=lambda one: one[0]):
            if (header := self._header(number)) is not None:
                seconds = max(0.0, round(about.st_mtime - header.began, 1))
                found.append(Recorded(number, about.st_size, header, seconds))
        return found

    def _is_of(self, number: str, who: str) -> bool:
        header = self._header(number)
        return header is not None and header.title == title_of(who, header.command)

    def _header(self, number: str) -> Header | None:
        from tunnel.core.wire.asciicast import MAX_LINE_BYTES, NotAsciicast, parse_header

        if (fd := self._open_file(number)) is None:
            return None
        with os.fdopen(fd, "rb") as file:
            try:
                return parse_header(file.readline(MAX_LINE_BYTES))
            except NotAsciicast:
                return None  # it has just begun, or is none of ours

    def _open_file(self, number: str) -> int | None:
        try:
            return os.open(self._folder() / f"{number}{SUFFIX}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None


def title_of(who: str, command: str) -> str:
    """Returns the title of a recording: who ran what, as long as a header has it."""
    return f"{who}: {command}"[:MAX_HEADER_TEXT_CHARS]


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)


def _charged(size: int) -> int:
    """Returns the bytes that a file of this size takes in whole blocks; 0 for an empty file."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
