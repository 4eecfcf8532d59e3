"""Reads recordings of terminals: from a file, or from a box through the fleet API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from tunnel.core.wire.asciicast import MAX_LINE_BYTES, Event, Header, NotAsciicast, parse_events, parse_header
from tunnel.core.wire.faults import RECORDING_UNUSABLE, FaultError
from tunnel.core.wire.spoken import printable
from tunnel.tool.answers import RECORDINGS
from tunnel.tool.api import Api

_ON_BOX = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{8}T[0-9]{6}Z-[0-9a-f]{8})")


class RecordingUnusable(FaultError):
    """Something is no recording, or cannot be read."""

    default_fault = RECORDING_UNUSABLE


@dataclass(frozen=True, slots=True)
class Listed:
    """A recording on a box, as the box tells of it."""

    id: str
    began: str
    seconds: float
    bytes: int
    title: str


@dataclass(frozen=True, slots=True)
class Cast:
    """A recording that is being read."""

    header: Header
    events: Iterator[Event]
    """The events in their order. It raises RecordingUnusable at one that cannot be understood."""


def place_on_box(text: str) -> tuple[str, str] | None:
    """Returns the box and the id that `BOX:ID` names; None for what is the path of a file."""
    match = _ON_BOX.fullmatch(text)
    return (match[1], match[2]) if match else None


def listed(api: Api, box: str) -> list[Listed]:
    """Returns the recordings of a box, the oldest first. Nobody has checked what the box says of them.

    Raises:
        ApiFailed: the box cannot be asked, or the user may not ask.
    """
    return [_listed(one) for one in api.get(_path(box), RECORDINGS)["recordings"]]


@contextmanager
def from_file(path: Path) -> Iterator[Cast]:
    """Gives the block a recording in a file.

    Raises:
        RecordingUnusable: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            yield _cast(_lines(file), str(path))
    except OSError as error:
        raise RecordingUnusable(f"{path}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def from_box(api: Api, box: str, number: str) -> Iterator[Cast]:
    """Gives the block a recording on a box, while it is fetched.

    Raises:
        ApiFailed: it cannot be had.
        RecordingUnusable: it is none.
    """
    with api.request("GET", f"{_path(box)}?id={number}") as answer:
        yield _cast(answer.lines(), f"{box}:{number}")


# Internal


def _path(box: str) -> str:
    return f"/api/v1/namespaces/default/pods/{quote(box, safe='')}/recordings"


def _listed(one: dict[str, Any]) -> Listed:
    words = [printable(str(one.get(name, "")))[:300] for name in ("id", "began", "title")]
    return Listed(words[0], words[1], float(one.get("seconds") or 0), int(one.get("bytes") or 0), words[2])


def _cast(lines: Iterator[bytes], name: str) -> Cast:
    try:
        header = parse_header(next(lines, b""))
    except NotAsciicast as error:
        raise RecordingUnusable(f"{name}: {error}") from error

    def events() -> Iterator[Event]:
        try:
            yield from parse_events(lines)
        except NotAsciicast as error:
            raise RecordingUnusable(f"{name}: {error}") from error

    return Cast(header, events())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
