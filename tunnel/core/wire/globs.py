"""Matches names against patterns, where `*` stands for any text and `?` for any one character."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_GLOB_CHARS = 253
"""The most characters of a pattern; names of users, groups and boxes are no longer."""
_GLOB = re.compile(r"[^\s\[\]{}]+")
_WILD = re.compile(r"[*?]")


def is_glob(text: str) -> bool:
    """Returns whether a text can be used as a pattern: 1 to MAX_GLOB_CHARS characters, without blanks, `[`, `]`, `{`
    and `}`.
    """
    return len(text) <= MAX_GLOB_CHARS and _GLOB.fullmatch(text) is not None


def is_wild(text: str) -> bool:
    """Returns whether a pattern can match other texts than itself."""
    return _WILD.search(text) is not None


def fixed_head(glob: str) -> str:
    """Returns what every name that a pattern matches begins with: all of it up to its first `*` or `?`."""
    return _WILD.split(glob, maxsplit=1)[0]


def matches(glob: str, name: str) -> bool:
    """Returns whether a pattern matches a name. No pattern matches the empty name, which is nobody's.

    The time it takes grows with the product of both lengths at most, whatever the pattern: a star that did not work out
    takes one character more, and only the last star is ever tried again.
    """
    if not name:
        return False
    at, pattern_at = 0, 0
    star, resumed_at = -1, 0
    while at < len(name):
        sign = glob[pattern_at] if pattern_at < len(glob) else ""
        if sign == "*":
            star, resumed_at = pattern_at, at
            pattern_at += 1
        elif sign and sign in ("?", name[at]):
            at += 1
            pattern_at += 1
        elif star >= 0:
            resumed_at += 1
            at, pattern_at = resumed_at, star + 1
        else:
            return False
    return not glob[pattern_at:].strip("*")


def matches_any(globs: Iterable[str], name: str) -> bool:
    """Returns whether one of the patterns matches a name."""
    return any(matches(glob, name) for glob in globs)
