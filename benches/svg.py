"""Small plots as SVG text: ranges as bars, and lines over time. Each panel has axes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

from benches.tables import Spread, number

LABEL = 110
"""What stands to the left of bars, in pixels like all here."""
ROW = 18
PLOT = 150
"""The height of a panel's lines."""
COLOURS = ("#2563a8", "#9aa0a6", "#c2571a", "#8a4fa3", "#3c8a4a", "#a8892b")

Point = tuple[float, float]


class Panel(Protocol):
    """One plot of a picture."""

    @property
    def height(self) -> float: ...

    def draw(self, width: float) -> list[str]:
        """Its elements, from the origin on."""
        ...


@dataclass(frozen=True, slots=True)
class Bars:
    """One figure of several subjects: the median as a bar, minimum and maximum as a line along its end."""

    title: str
    rows: dict[str, Spread | None]
    """None keeps a subject's place, and so the others' colours."""

    @property
    def height(self) -> float:
        return 38.0 + len(self.rows) * ROW

    def draw(self, width: float) -> list[str]:
        most = max(spread.high for spread in self.rows.values() if spread) or 1.0
        scale = (width - LABEL - 60) / most
        parts = [_text(8, 14, self.title, weight="bold")]
        for place, (subject, spread) in enumerate(self.rows.items()):
            y = 24.0 + (place + 0.5) * ROW
            parts.append(_text(LABEL - 6, y + 4, subject, anchor="end"))
            if spread is not None:
                low, end, high = (LABEL + value * scale for value in spread)
                parts += [
                    _path(f"M{LABEL} {y:.1f}H{max(LABEL + 0.5, end):.1f}", _colour(place), ROW - 4),
                    _path(f"M{low:.1f} {y:.1f}H{high:.1f}", "#222", 1.5),
                    _text(high + 6, y + 4, number(spread.median)),
                ]
        return parts


@dataclass(frozen=True, slots=True)
class Lines:
    """Series over the same seconds."""

    title: str
    series: dict[str, Sequence[Point]]

    @property
    def height(self) -> float:
        return 60.0 + PLOT

    def draw(self, width: float) -> list[str]:
        points = [point for series in self.series.values() for point in series]
        last, most = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
        left, foot = 60, 24.0 + PLOT
        across = width - left - 30
        parts = [_text(8, 14, self.title, weight="bold")]
        for share in (0.0, 0.5, 1.0):
            y = foot - share * PLOT
            parts += [
                _path(f"M{left} {y:.1f}h{across:.1f}", "#ddd", 1),
                _text(left - 6, y + 4, number(share * most), anchor="end"),
                _text(left + share * across, foot + 15, f"{number(share * last)} s", anchor="middle"),
            ]
        for place, (name, series) in enumerate(self.series.items()):
            line = "L".join(f"{left + x / last * across:.1f} {foot - y / most * PLOT:.1f}" for x, y in series)
            parts.append(_path(f"M{line}", _colour(place), 1.3))
            parts.append(_text(width - 30 - 90 * place, 14, name, anchor="end", colour=_colour(place)))
        return parts


@dataclass(frozen=True, slots=True)
class Curve:
    """Named points, joined in their order: what one figure costs of another."""

    title: str
    across: str
    """The figure of the horizontal axis, with its unit."""
    points: dict[str, Point]

    @property
    def height(self) -> float:
        return 80.0 + PLOT

    def draw(self, width: float) -> list[str]:
        last = max(x for x, _ in self.points.values()) * 1.15 or 1.0
        most = max(y for _, y in self.points.values()) * 1.15 or 1.0
        left, foot = 60, 24.0 + PLOT
        wide = width - left - 30
        parts = [
            _text(8, 14, self.title, weight="bold"),
            _text(left + wide / 2, foot + 32, self.across, anchor="middle"),
        ]
        for share in (0.0, 0.5, 1.0):
            y = foot - share * PLOT
            parts += [
                _path(f"M{left} {y:.1f}h{wide:.1f}", "#ddd", 1),
                _text(left - 6, y + 4, number(share * most), anchor="end"),
                _text(left + share * wide, foot + 15, number(share * last), anchor="middle"),
            ]
        places = {name: (left + x / last * wide, foot - y / most * PLOT) for name, (x, y) in self.points.items()}
        parts.append(_path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places.values()), _colour(0), 1.3))
        for name, (x, y) in places.items():
            parts += [_path(f"M{x - 3:.1f} {y:.1f}h6", _colour(2), 6), _text(x, y - 8, name, anchor="middle")]
        return parts


def picture(panels: Sequence[Panel], *, columns: int, width: float) -> str:
    """A whole file; `width` is a panel's."""
    parts: list[str] = []
    top = 8.0
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        for column, panel in enumerate(row):
            parts += [f'<g transform="translate({column * width:.0f} {top:.0f})">', *panel.draw(width), "</g>"]
        top += max(panel.height for panel in row)
    size = f'width="{columns * width:.0f}" height="{top:.0f}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join((head, *parts, "</svg>\n"))


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _path(line: str, colour: str, thick: float) -> str:
    return f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="{thick:g}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
