"""Texts for people: lengths of time as people say them, and texts of others made harmless to a terminal or a log."""

from __future__ import annotations


def spoken_s(seconds: float) -> str:
    """Returns a length of time as people say it: `2.5 s`, `0.25 s`, or `10 s` for the 9.99887 left of ten."""
    return f"{round(seconds)} s" if seconds >= 9.95 else f"{seconds:.2g} s"


def printable(text: str) -> str:
    """Returns a text with `?` for each character that cannot be seen: line ends, escapes, marks of direction."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
