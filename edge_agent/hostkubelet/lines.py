"""Cutting chunks of bytes into lines, and putting a time in front of each."""

from __future__ import annotations

from collections.abc import Iterator
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

    def stamp(self, chunk: bytes, time: datetime) -> bytes:
        """The chunk with `time` in front of each line that begins in it."""
        if not chunk:
            return b""
        prefix = rfc3339(time)
        ended = chunk.endswith(b"\n")
        body = chunk[:-1] if ended else chunk
        stamped = (prefix if self._at_start else b"") + body.replace(b"\n", b"\n" + prefix)
        self._at_start = ended
        return stamped + b"\n" if ended else stamped
