"""Writes tables and times for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tunnel.core.wire.spoken import printable
from tunnel.tool.copy_progress import duration_text


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table with columns as wide as they need to be, the last not filled up. None and "" are shown as -."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ("   ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def age(moment: str | None, now: datetime | None = None) -> str:
    """Returns how long ago a time of RFC 3339 was; "" for none, or for what is no time."""
    if not moment:
        return ""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return ""
    if then.tzinfo is None:
        return ""
    return duration_text(max(((now or datetime.now(UTC)) - then).total_seconds(), 0.0))


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value))
