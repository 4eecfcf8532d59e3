"""Cutting chunks of bytes into lines, and putting a time in front of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

MAX_LINE_BYTES = 1024 * 1024
"""A longer line is left out where lines must be whole to be understood; journald's own default is 48 KiB."""


def rfc3339(time: datetime) -> bytes:
    """A UTC time as a kubelet writes it in front of a line, with the space."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()


class LineSplitter:
    """Whole lines from chunks that end anywhere; bounded."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that this chunk completes, without their ends."""
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
        """That time as it is written."""

    def stamp(self, chunk: bytes, time_of: Callable[[bytes], datetime]) -> bytes:
        """The chunk with the time of each line in front of it; the end of a line that began before stays as it is.

        Args:
            chunk: what comes next.
            time_of: the time of a line, whole or what there is of it.
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
        """Thousands of lines may have the time of the one before."""
        if time is not self._time:
            self._time, self._text = time, rfc3339(time)
        return self._text


def with_ends(chunk: bytes) -> list[bytes]:
    """Lines with their line feeds, and with nothing else taken for the end of one."""
    *whole, rest = chunk.split(b"\n")
    return [part + b"\n" for part in whole] + ([rest] if rest else [])
