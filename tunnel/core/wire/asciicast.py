"""Reads and writes the format of recorded terminals: asciicast, version 2 (docs.asciinema.org/manual/asciicast/v2).

The first line is a JSON object about the recording; each line behind it is an event: seconds since the beginning, what
happened, and its text. Only output (`o`) and new sizes of the terminal (`r`) are recorded, never what was typed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tunnel.core.wire.limits import LAST_MOMENT_S

VERSION = 2
OUTPUT = "o"
RESIZE = "r"
MAX_LINE_BYTES = 1 << 20
"""The most bytes of a line that is read; one that is written has some 200 KB at most."""
MAX_HEADER_TEXT_CHARS = 1000
"""The most characters of a title or of a command line in the header."""
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


class NotAsciicast(Exception):
    """A file is no recording of this format; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of a recording: what it says about itself."""

    columns: int
    rows: int
    began: int
    """The time of the beginning in whole seconds since 1970."""
    title: str
    command: str = ""

    def line(self) -> bytes:
        """Returns the first line of the recording."""
        about = {
            "version": VERSION,
            "width": self.columns,
            "height": self.rows,
            "timestamp": self.began,
            "title": self.title[:MAX_HEADER_TEXT_CHARS],
        }
        if self.command:
            about["command"] = self.command[:MAX_HEADER_TEXT_CHARS]
        return _line({**about, "env": {"TERM": "xterm"}})


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a recording."""

    at_s: float
    """The seconds since the beginning."""
    kind: str
    data: str
    """The text that was written; for a resize the new size, such as `80x24`."""

    def line(self) -> bytes:
        """Returns the event's line."""
        return _line([round(self.at_s, 6), self.kind, self.data])


def resized(at_s: float, columns: int, rows: int) -> Event:
    """Returns the event of a new size of the terminal."""
    return Event(at_s, RESIZE, f"{columns}x{rows}")


def parse_header(line: bytes) -> Header:
    """Returns the header that the first line of a recording holds.

    Raises:
        NotAsciicast: the line is no header of this version.
    """
    about = _parsed(line)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise NotAsciicast(f"its first line is no header of an asciicast of version {VERSION}")
    columns, rows, began = (about.get(name, 0) for name in ("width", "height", "timestamp"))
    if not all(type(number) is int and 0 <= number <= LAST_MOMENT_S for number in (columns, rows, began)):
        raise NotAsciicast("its header has no width, height and timestamp")
    title, command = (about.get(name, "") for name in ("title", "command"))
    if not isinstance(title, str) or not isinstance(command, str):
        raise NotAsciicast("its header has a title or a command that is no text")
    return Header(columns=columns, rows=rows, began=began, title=title, command=command)


def parse_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yields the events of the lines behind the header. A last line that was cut, by a loss of power, is left out.

    Raises:
        NotAsciicast: another line is no event.
    """
    cut: str = ""
    for number, line in enumerate(lines, 2):
        if cut:
            raise NotAsciicast(cut)
        if not line.strip():
            continue
        parsed = _parsed(line)
        match parsed:
            case [int() | float() as at_s, str() as kind, str() as data] if at_s >= 0:
                if kind != RESIZE or _SIZE.fullmatch(data):
                    yield Event(float(at_s), kind, data)
            case _:
                cut = f"line {number} is no event"


# Internal


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "replace") + b"\n"


def _parsed(line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
