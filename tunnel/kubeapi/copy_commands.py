"""Holds the commands by which `kubectl cp` and `longline cp` copy files, and tells them from all others.

Who may copy and not run commands is let in by these shapes and nothing near them: an option of tar's can run a program
(`--to-command`), so that no word that a client chooses may be taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

HOME: Final = "pwd"
"""The script that prints the folder that commands start in."""
# `ls -ldn` is the one way to size and mode that POSIX and busybox share; of its line only the first fields are read.
PROBE = """
if [ -d "$1" ]; then echo d; elif [ -e "$1" ]; then ls -ldnL -- "$1"; else echo -; fi
"""
UPLOAD = """
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
DOWNLOAD = """
head -c "$2" <"$1" || exit 1
if command -v sha256sum >/dev/null 2>&1; then head -c "$2" <"$1" | sha256sum >&2; else echo no sha256sum >&2; fi
"""
LIST = """
cd -- "$1" || exit 1
find . \\( -type d -o -type f -o -type l \\) -exec sh -c '
    set -f
    for path do
        set -- $(ls -ldn -- "$path") && printf "%s %s %s %s %s\\0%s\\0" "$1" "$2" "$3" "$4" "$5" "$path"
    done' sh {} +
"""
MAKE_FOLDERS = """
for path do mkdir -p -- "$path" || exit 1; done
"""
SET_MODES = """
mode=$1
shift
chmod "$mode" "$@"
"""

_SHELL = ["sh", "-c"]
_MODE = re.compile(r"[0-7]{1,3}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESUMED = re.compile(r"tar cf - ([A-Za-z0-9_./@%+:,][A-Za-z0-9_./@%+:,=-]*) \| tail -c\+[0-9]{1,18}")
"""The command that kubectl runs to go on with a download (cp.go, newTarPipe). It puts the path into a shell's line as
it is, so that only a path without any sign that a shell reads is what it seems."""
_UNPACK = (["tar", "-xmf", "-"], ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"])
"""The commands that kubectl runs to unpack an upload (cp.go, copyToPod), the second with --no-preserve."""


def script_command(script: str, words: Sequence[str]) -> list[str]:
    """Returns the command line that runs one of the scripts with positional parameters."""
    return [*_SHELL, script, "sh", *words]


def is_copy(command: Sequence[str]) -> bool:
    """Returns whether a command line is one of `kubectl cp` or of `longline cp`, and can be nothing else."""
    match list(command):
        case ["tar", "cf", "-", path]:
            return _is_path(path)
        case ["test", "-d", _]:
            return True
        case [*unpack, "-C", folder] if unpack in _UNPACK:
            return folder != ""
        case unpack if unpack in _UNPACK:
            return True
        case ["sh", "-c", line]:
            return _RESUMED.fullmatch(line) is not None
        case ["sh", "-c", script, "sh", *words]:
            fits = _SCRIPTS.get(script)
            return fits is not None and fits(words)
    return False


# Internal


def _is_path(word: str) -> bool:
    return word != "" and not word.startswith("-")


def _one(words: Sequence[str]) -> bool:
    return len(words) == 1


def _fits_upload(words: Sequence[str]) -> bool:
    match words:
        case [path, part, mode, size, sha256]:
            is_number, is_sum = _NUMBER.fullmatch(size), _SHA256.fullmatch(sha256)
            return _is_path(path) and _is_path(part) and bool(_MODE.fullmatch(mode) and is_number and is_sum)
    return False


def _fits_download(words: Sequence[str]) -> bool:
    return len(words) == 2 and _NUMBER.fullmatch(words[1]) is not None


def _fits_modes(words: Sequence[str]) -> bool:
    return len(words) > 1 and _MODE.fullmatch(words[0]) is not None and all(map(_is_path, words[1:]))


_SCRIPTS: Final[dict[str, Callable[[Sequence[str]], bool]]] = {
    HOME: lambda words: not words,
    PROBE: _one,
    UPLOAD: _fits_upload,
    DOWNLOAD: _fits_download,
    LIST: _one,
    MAKE_FOLDERS: bool,
    SET_MODES: _fits_modes,
}
"""Each script, with a function that tells whether words are such as the script is run with."""
