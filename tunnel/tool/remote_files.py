"""Reads and writes files on a box, through commands that every box has.

These are a POSIX shell with `cat`, `head -c`, `ls`, `find`, `mv`.

No tar: what is copied goes as bytes through the command's input or output, and is checked for its size, and for its
SHA-256 where the box has `sha256sum`. A file appears under its name whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from tunnel.core.wire.faults import COPY_FAILED
from tunnel.core.wire.spoken import printable
from tunnel.kubeapi.copy_commands import (
    DOWNLOAD,
    HOME,
    LIST,
    MAKE_FOLDERS,
    PROBE,
    SET_MODES,
    UPLOAD,
    script_command,
)
from tunnel.tool.api import Api, ApiFailed
from tunnel.tool.remote_exec import Channel, Chunks, run_command

MAX_TEXT_BYTES = 64 * 1024
"""The most bytes of what a command says beside what is copied."""
MAX_LISTING_BYTES = 64 * 1024 * 1024
"""The most bytes of the listing of a folder: some half a million files."""
PATHS_PER_COMMAND = 500
_MODE = re.compile(r"([-dlbcps])([-r])([-w])([-xsS])([-r])([-w])([-xsS])([-r])([-w])([-xtT])")
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


class RemoteFailed(ApiFailed):
    """A command on the box failed; the text is the box's own."""

    default_fault = COPY_FAILED


class Kind(Enum):
    """The kinds of things that may stand at a path of a box."""

    FILE = "-"
    FOLDER = "d"
    LINK = "l"
    NOTHING = ""
    OTHER = "?"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A path on a box, and what stands there."""

    path: str
    """The path as the box wrote it, which nobody has checked."""
    kind: Kind
    mode: int = 0
    """The permission bits, without set-user-id and the like."""
    size: int = 0


class RemoteFiles:
    """The files of one box."""

    def __init__(self, api: Api, box: str) -> None:
        self._api = api
        self.box = box

    def probe(self, path: str) -> RemoteFile:
        """Returns what stands at a path; links are followed.

        Raises:
            ApiFailed: the box cannot be asked.
        """
        line = self._text(PROBE, path)
        if line.strip() in ("d", "-"):
            return RemoteFile(path, Kind.FOLDER if line.strip() == "d" else Kind.NOTHING)
        return _parsed(line, path)

    def upload(self, path: str, part: str, mode: int, size: int, sha256: str, content: Iterator[bytes]) -> None:
        """Writes a file by way of `part`, which is in the same folder and is gone whatever happens.

        Args:
            path: the file's path.
            part: the path of the temporary file.
            mode: the permission bits of the file.
            size: how many bytes `content` has.
            sha256: the SHA-256 of all of them, as hexadecimal digits.
            content: the file's bytes.

        Raises:
            ApiFailed: it did not arrive whole; what was at the path before still is.
        """
        words = [path, part, f"{mode:o}", str(size), sha256]
        self._run(UPLOAD, *words, source=Chunks(content))

    def download(self, path: str, size: int, write: Callable[[bytes], None]) -> str:
        """Hands the first `size` bytes of a file to `write`; returns their SHA-256 on the box, "" where it has none.

        Raises:
            ApiFailed: they could not be read.
        """
        said = self._run(DOWNLOAD, path, str(size), write=write)
        found = _SHA256.search(said)
        return found[0] if found else ""

    def listing(self, folder: str) -> list[RemoteFile]:
        """Returns all that is in a folder and below it, with paths relative to it, which nobody has checked.

        Raises:
            ApiFailed: it cannot be listed.
        """
        parts = self._text(LIST, folder, limit_bytes=MAX_LISTING_BYTES).split("\0")
        pairs = zip(parts[:-1:2], parts[1::2], strict=True) if len(parts) % 2 else ()
        return [_parsed(line, path.removeprefix("./")) for line, path in pairs if path != "."]

    def make_folders(self, paths: list[str]) -> None:
        """Makes folders, and those above them; what is there already stays.

        Raises:
            ApiFailed: one could not be made.
        """
        for start in range(0, len(paths), PATHS_PER_COMMAND):
            self._run(MAKE_FOLDERS, *paths[start : start + PATHS_PER_COMMAND])

    def set_modes(self, mode: int, paths: list[str]) -> None:
        """Gives paths, none of which begins with a hyphen, the same permissions.

        Raises:
            ApiFailed: one could not be changed.
        """
        for start in range(0, len(paths), PATHS_PER_COMMAND):
            self._run(SET_MODES, f"{mode:o}", *paths[start : start + PATHS_PER_COMMAND])

    def home(self) -> str:
        """Returns the folder that commands start in, which relative paths are below.

        Raises:
            ApiFailed: the box cannot be asked.
        """
        return self._text(HOME).rstrip("\n")

    # Internal

    def _text(self, script: str, *words: str, limit_bytes: int = MAX_TEXT_BYTES) -> str:
        said = bytearray()

        def write(data: bytes) -> None:
            said.extend(data)
            if len(said) > limit_bytes:
                raise RemoteFailed(f"{self.box}: the answer is longer than {limit_bytes >> 10} KiB")

        self._run(script, *words, write=write)
        return said.decode("utf-8", "surrogateescape")

    def _run(
        self, script: str, *words: str, source: Chunks | None = None, write: Callable[[bytes], None] | None = None
    ) -> str:
        """Runs a script with positional parameters; returns what it says on standard error.

        Raises:
            ApiFailed: it could not be run, or ended with another exit code than 0 (`RemoteFailed`).
        """
        errors = bytearray()

        def output(channel: Channel, data: bytes) -> None:
            if channel is Channel.STDERR:
                errors.extend(data[: MAX_TEXT_BYTES - len(errors)])
            elif write is not None:
                write(data)

        code = run_command(self._api, self.box, script_command(script, words), output, source=source)
        text = errors.decode("utf-8", "replace")
        if code:
            lines = [line for line in text.splitlines() if line.strip()]
            said = printable(lines[-1])[:500] if lines else ""
            raise RemoteFailed(f"{self.box}: {said or f'the command on the box ended with exit code {code}'}")
        return text


def _parsed(line: str, path: str) -> RemoteFile:
    """Returns what a line of `ls -ldn` says of a path: mode, links, owner, group, size."""
    match, fields = _MODE.match(line), line.split()
    if match is None or len(fields) < 5:
        return RemoteFile(path, Kind.OTHER)
    bits = 0
    for letter in match.groups()[1:]:
        bits = bits << 1 | (letter in "rwxst")
    kind = next((kind for kind in (Kind.FILE, Kind.FOLDER, Kind.LINK) if kind.value == match[1]), Kind.OTHER)
    size = int(fields[4]) if kind is Kind.FILE and re.fullmatch(r"[0-9]{1,18}", fields[4]) else 0
    return RemoteFile(path, kind, bits, size)
