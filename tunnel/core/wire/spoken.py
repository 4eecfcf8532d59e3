"""Figures as people say them."""

from __future__ import annotations


def spoken_s(seconds: float) -> str:
    """Returns a length of time for a message: `10 s` for 9.99887, what was left of ten; `2.5 s`, `0.25 s`."""
    return f"{round(seconds)} s" if seconds >= 9.95 else f"{seconds:.2g} s"
