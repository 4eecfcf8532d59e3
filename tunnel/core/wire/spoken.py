"""What people read: figures as they say them, and texts of others that do nothing to a terminal or a log."""

from __future__ import annotations


def spoken_s(seconds: float) -> str:
    """Returns a length of time for a message: `10 s` for 9.99887, what was left of ten; `2.5 s`, `0.25 s`."""
    return f"{round(seconds)} s" if seconds >= 9.95 else f"{seconds:.2g} s"


def printable(text: str) -> str:
    """Returns a text with `?` for what is no character to see: line ends, escapes, marks that turn the direction."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
