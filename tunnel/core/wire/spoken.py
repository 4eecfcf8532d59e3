"""Texts for people: lengths of time as people say them, and texts of others made harmless to a terminal or a log."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # CSI: colours, the cursor, wiped screens
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f]*+(?:\x07|\x1b\\|\x9c)"  # OSC: titles, links
    r"|\x1b[ -/]*+[0-Z\\^-~]"  # the short ones: a reset of the terminal
)
"""What terminals obey, by ECMA-48 5.3 to 5.6, where it is whole. What it would do it does not say."""


def spoken_s(seconds: float) -> str:
    """Returns a length of time as people say it: `2.5 s`, `0.25 s`, or `10 s` for the 9.99887 left of ten."""
    return f"{round(seconds)} s" if seconds >= 9.95 else f"{seconds:.2g} s"


def printable(text: str, max_chars: int | None = None) -> str:
    """Returns what somebody else said fit for a terminal, a log or an object of an API.

    A whole escape sequence, and each other character that cannot be seen, is one `?`: line ends, marks of direction,
    half characters. Nothing is taken out without a trace, so that no name becomes another's. All that peers say goes
    through here where it comes in.

    Args:
        text: as it was said.
        max_chars: where it is cut; None for a text whose length is bounded already.
    """
    if max_chars is not None and len(text) > max_chars:
        text = text[:max_chars]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in _ESCAPES.sub("\x1b", text))
