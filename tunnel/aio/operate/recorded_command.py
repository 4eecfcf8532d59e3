"""How the audit records of both daemons tell of commands."""

from __future__ import annotations

from collections.abc import Sequence

MAX_COMMAND_BYTES = 1024
"""The most bytes of one command's words, in UTF-8: what people type fits, a script that is passed as a word is cut."""


def recorded_command(argv: Sequence[str]) -> list[str]:
    """Returns a command as a record holds it: its words as they are, up to a bound, and how much is missing.

    Its arguments are kept, since without them the record of an exec would tell nothing. Who may read the log of a
    daemon may read what was typed.
    """
    left = MAX_COMMAND_BYTES
    kept: list[str] = []
    for index, word in enumerate(argv):
        data = word.encode("utf-8", "replace")
        if len(data) > left:
            missing = len(data) - left + sum(len(other.encode("utf-8", "replace")) for other in argv[index + 1 :])
            return [*kept, f"{data[:left].decode('utf-8', 'ignore')}... [{missing} bytes more]"]
        kept.append(data.decode())
        left -= len(data) or 1  # a thousand empty words are a long record, too
    return kept
