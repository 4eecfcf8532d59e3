"""Finds the line of a TOML file that a key stands in, for messages. It is pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

_TABLE = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_./-]+)["']?\s*=""")


def line_numbers(text: str) -> dict[str, int]:
    """Returns the lines of keys and tables; good enough for messages, where TOML allows stranger forms too."""
    numbers: dict[str, int] = {}
    counts: Counter[str] = Counter()
    """The number of tables of each array so far."""
    prefix = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.match(line):
            key = _table_key(match[2], counts, begins_one=match[1] == "[[")
            numbers.setdefault(key.removesuffix("]").rpartition("[")[0] or key, number)
            numbers.setdefault(key, number)
            prefix = f"{key}."
        elif match := _KEY.match(line):
            numbers.setdefault(prefix + match[1], number)
    return numbers


def line_of(key: str, numbers: Mapping[str, int]) -> int:
    """Returns the line of a key, or of what it would be part of; the first line when it is part of nothing."""
    while key:
        if key in numbers:
            return numbers[key]
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return 1


# Internal


def _table_key(name: str, counts: Counter[str], *, begins_one: bool) -> str:
    """Returns the key of the table that a head begins: `[[role.allow]]` may be `role[1].allow[0]`, the first in the
    second role.
    """
    key, parts = "", name.split(".")
    for place, part in enumerate(parts):
        key = f"{key}.{part}" if key else part
        if begins_one and place == len(parts) - 1:
            counts[key] += 1
        if counts[key]:
            key = f"{key}[{counts[key] - 1}]"
    return key
