"""Cuts chunks of bytes into lines, and puts a time in front of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

MAX_LINE_BYTES = 1024 * 1024
"""The most bytes of a line where lines must be whole to be understood: a longer one is left out. journald's own default
is 48 KiB."""


def rfc3339(time: datetime) -> bytes:
    """Returns a UTC time as a kubelet writes it in front of a line, with the space."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()


class LineSplitter:
    """Makes whole lines of chunks that end anywhere, and holds at most MAX_LINE_BYTES of an incomplete one."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields the lines that this chunk completes, without their ends."""
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            line = bytes(self._partial + part)
            self._partial.clear()
            if not self._skipping and len(line) <= MAX_LINE_BYTES:
                yield line
            self._skipping = False
        if self._skipping or len(self._partial) + len(rest) > MAX_LINE_BYTES:
            self._skipping = True
            self._partial.clear()
        else:
            self._partial += rest


class LineStamper:
    """Puts a time in front of each line of a stream whose chunks end anywhere."""

    def __init__(self) -> None:
        self._at_start = True
        self._time: datetime | None = None
        self._text = b""
        """The last time as it is written."""

    def stamp(self, chunk: bytes, time_of: Callable[[bytes], datetime]) -> bytes:
        """Returns the chunk with its time in front of each line; the end of a line that began before stays as it is.

        Args:
            chunk: the next bytes of the stream.
            time_of: returns the time of a line, given the whole line or what there is of it.
        """
        stamped: list[bytes] = []
        for line in with_ends(chunk):
            if self._at_start:
                stamped.append(self._written(time_of(line)))
            stamped.append(line)
            self._at_start = line.endswith(b"\n")
        return b"".join(stamped)

    # Internal

    def _written(self, time: datetime) -> bytes:
        """Returns a time as it is written; it keeps the last one, since thousands of lines may have the same time."""
        if time is not self._time:
            self._time, self._text = time, rfc3339(time)
        return self._text


def with_ends(chunk: bytes) -> list[bytes]:
    """Returns lines with their line feeds; nothing but a line feed counts as the end of one."""
    *whole, rest = chunk.split(b"\n")
    return [part + b"\n" for part in whole] + ([rest] if rest else [])
