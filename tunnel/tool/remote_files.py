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
from tunnel.tool.api import Api, ApiFailed
from tunnel.tool.remote_exec import Channel, Chunks, run_command

MAX_TEXT_BYTES = 64 * 1024
"""The most bytes of what a command says beside what is copied."""
MAX_LISTING_BYTES = 64 * 1024 * 1024
"""The most bytes of the listing of a folder: some half a million files."""
PATHS_PER_COMMAND = 500
_MODE = re.compile(r"([-dlbcps])([-r])([-w])([-xsS])([-r])([-w])([-xsS])([-r])([-w])([-xtT])")
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")

# `ls -ldn` is the one way to size and mode that POSIX and busybox share; of its line only the first fields are read.
_PROBE = """
if [ -d "$1" ]; then echo d; elif [ -e "$1" ]; then ls -ldnL -- "$1"; else echo -; fi
"""
_UPLOAD = """
path=$1 part=$2 mode=$3 size=$4 sum=$5
umask 077
trap 'rm -f -- "$part"' EXIT
trap 'exit 1' HUP INT TERM PIPE
cat >"$part" || exit 1
got=$(($(wc -c <"$part")))
[ "$got" = "$size" ] || { echo "$got of $size bytes arrived" >&2; exit 1; }
if command -v sha256sum >/dev/null 2>&1; then
    got=$(sha256sum <"$part") || exit 1
    [ "${got%% *}" = "$sum" ] || { echo "the checksum on the box is another one" >&2; exit 1; }
fi
chmod "$mode" "$part" && mv -f -- "$part" "$path" || exit 1
"""
_DOWNLOAD = """
head -c "$2" <"$1" || exit 1
if command -v sha256sum >/dev/null 2>&1; then head -c "$2" <"$1" | sha256sum >&2; else echo no sha256sum >&2; fi
"""
_LIST = """
cd -- "$1" || exit 1
find . \\( -type d -o -type f -o -type l \\) -exec sh -c '
    set -f
    for path do
        set -- $(ls -ldn -- "$path") && printf "%s %s %s %s %s\\0%s\\0" "$1" "$2" "$3" "$4" "$5" "$path"
    done' sh {} +
"""
_MAKE_FOLDERS = """
for path do mkdir -p -- "$path" || exit 1; done
"""
_SET_MODES = """
mode=$1
shift
chmod "$mode" "$@"
"""


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
        line = self._text(_PROBE, path)
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
        self._run(_UPLOAD, *words, source=Chunks(content))

    def download(self, path: str, size: int, write: Callable[[bytes], None]) -> str:
        """Hands the first `size` bytes of a file to `write`; returns their SHA-256 on the box, "" where it has none.

        Raises:
            ApiFailed: they could not be read.
        """
        said = self._run(_DOWNLOAD, path, str(size), write=write)
        found = _SHA256.search(said)
        return found[0] if found else ""

    def listing(self, folder: str) -> list[RemoteFile]:
        """Returns all that is in a folder and below it, with paths relative to it, which nobody has checked.

        Raises:
            ApiFailed: it cannot be listed.
        """
        parts = self._text(_LIST, folder, limit_bytes=MAX_LISTING_BYTES).split("\0")
        pairs = zip(parts[:-1:2], parts[1::2], strict=True) if len(parts) % 2 else ()
        return [_parsed(line, path.removeprefix("./")) for line, path in pairs if path != "."]

    def make_folders(self, paths: list[str]) -> None:
        """Makes folders, and those above them; what is there already stays.

        Raises:
            ApiFailed: one could not be made.
        """
        for start in range(0, len(paths), PATHS_PER_COMMAND):
            self._run(_MAKE_FOLDERS, *paths[start : start + PATHS_PER_COMMAND])

    def set_modes(self, mode: int, paths: list[str]) -> None:
        """Gives paths, none of which begins with a hyphen, the same permissions.

        Raises:
            ApiFailed: one could not be changed.
        """
        for start in range(0, len(paths), PATHS_PER_COMMAND):
            self._run(_SET_MODES, f"{mode:o}", *paths[start : start + PATHS_PER_COMMAND])

    def home(self) -> str:
        """Returns the folder that commands start in, which relative paths are below.

        Raises:
            ApiFailed: the box cannot be asked.
        """
        return self._text("pwd").rstrip("\n")

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

        code = run_command(self._api, self.box, ["sh", "-c", script, "sh", *words], output, source=source)
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
