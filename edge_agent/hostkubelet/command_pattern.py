"""Tells which command lines a rule allows: word by word, as the program gets them. No shell reads a pattern."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tunnel.core.wire.globs import is_wild, matches

ANY_MORE = "*"
"""The last word of a pattern that stands for any further words, or none."""
MAX_WORDS = 256
"""The most words of a pattern."""
_UPWARDS = re.compile(r"(?:^|[/=:,])\.\.(?:$|/)")


@dataclass(frozen=True, slots=True)
class CommandPattern:
    """A command line that is allowed. Its words are exact, or have `*` for any text and `?` for any one character.

    Neither stands for a `/`, nor do they match what somebody could mean something else by: a word that begins with a
    hyphen where the pattern does not, or that leads upwards (`..`). A last word `*` is any further words, whatever
    they are, options too.
    """

    text: str
    """The pattern as it was written."""
    words: tuple[str, ...]
    """The words, without a last `*`; never empty."""
    any_more: bool
    """Whether any further words may follow."""

    @classmethod
    def parse(cls, text: str) -> CommandPattern:
        """Returns the pattern that a text stands for.

        Quotes and backslashes keep blanks in a word, and mean nothing else.

        Raises:
            ValueError: the text is no pattern; the error says why.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"{_shown(text)} cannot be split into words: {str(error).lower()}") from None
        if not words or not words[0]:
            raise ValueError("a command line must name a program")
        if is_wild(words[0]):
            raise ValueError(f"{_shown(text)} must name its program exactly, without * or ?")
        if len(words) > MAX_WORDS:
            raise ValueError(f"{_shown(text)} has more than {MAX_WORDS} words")
        any_more = words[-1] == ANY_MORE
        return cls(text, tuple(words[:-1] if any_more else words), any_more)

    def allows(self, argv: Sequence[str]) -> bool:
        """Returns whether the pattern fits a command line."""
        if len(argv) < len(self.words) or (len(argv) > len(self.words) and not self.any_more):
            return False
        return all(_fits(pattern, word) for pattern, word in zip(self.words, argv, strict=False))


# Internal


def _fits(pattern: str, word: str) -> bool:
    if not is_wild(pattern):
        return pattern == word
    if (word.startswith("-") and not pattern.startswith("-")) or _UPWARDS.search(word):
        return False
    ours, theirs = pattern.split("/"), word.split("/")
    return len(ours) == len(theirs) and all(
        matches(mine, part) or (not part and not mine.strip("*")) for mine, part in zip(ours, theirs, strict=True)
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
