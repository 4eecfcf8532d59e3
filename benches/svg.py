"""Small plots as SVG text: ranges as bars, and lines over time. Panels stand below each other, each with its axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from benches.tables import Spread, number

WIDTH = 720
LABEL = 170
"""What stands to the left of an axis, in pixels like all here."""
ROW = 18
PLOT = 150
"""The height of a panel with lines."""
COLOURS = ("#2563a8", "#9aa0a6", "#c2571a", "#8a4fa3", "#3c8a4a", "#a8892b")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bars:
    """One figure of several subjects: the median as a bar, minimum and maximum as a line across its end."""

    title: str
    rows: dict[str, Spread]

    def draw(self, top: float) -> tuple[list[str], float]:
        """Its elements, and where it ends."""
        most = max(spread.high for spread in self.rows.values()) or 1.0
        scale = (WIDTH - LABEL - 90) / most
        parts = [_text(8, top + 14, self.title, weight="bold")]
        for place, (subject, spread) in enumerate(self.rows.items()):
            y = top + 24 + place * ROW
            middle = y + ROW / 2 - 2
            low, end, high = (LABEL + value * scale for value in spread)
            bar = f"M{LABEL} {middle:.1f}H{max(LABEL + 0.5, end):.1f}"
            parts += [
                _text(LABEL - 8, middle + 4, subject, anchor="end"),
                f'<path d="{bar}" stroke-width="{ROW - 4}" {_colour(place)}/>',
                f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#222" stroke-width="1.5"/>',
                _text(high + 6, middle + 4, number(spread.median)),
            ]
        return parts, top + 24 + len(self.rows) * ROW + 14


@dataclass(frozen=True, slots=True)
class Lines:
    """Series over one horizontal axis."""

    title: str
    unit: str
    series: dict[str, Sequence[Point]]
    across: str = "s"
    """The unit of the horizontal axis."""

    def draw(self, top: float) -> tuple[list[str], float]:
        """Its elements, and where it ends."""
        points = [point for series in self.series.values() for point in series]
        last, most = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
        left, width, foot = 60, WIDTH - 80, top + 24 + PLOT
        parts = [_text(8, top + 14, f"{self.title}, {self.unit}", weight="bold")]
        for share in (0.0, 0.5, 1.0):
            y, x = foot - share * PLOT, left + share * width
            parts += [
                f'<path d="M{left} {y:.1f}h{width}" stroke="#ddd"/>',
                _text(left - 6, y + 4, number(share * most), anchor="end"),
                _text(x, foot + 15, f"{number(share * last)} {self.across}", anchor="middle"),
            ]
        for place, (name, series) in enumerate(self.series.items()):
            path = " ".join(f"{left + x / last * width:.1f},{foot - y / most * PLOT:.1f}" for x, y in series)
            parts.append(f'<polyline points="{path}" fill="none" stroke-width="1.3" {_colour(place)}/>')
            if name:
                parts.append(
                    _text(WIDTH - 24, top + 14 + place * 14, name, anchor="end", colour=COLOURS[place % len(COLOURS)])
                )
        return parts, foot + 30


def picture(panels: Iterable[Bars | Lines]) -> str:
    """A whole file."""
    parts: list[str] = []
    height = 6.0
    for panel in panels:
        drawn, height = panel.draw(height)
        parts += drawn
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join((head, *parts, "</svg>\n"))


def _colour(place: int) -> str:
    return f'stroke="{COLOURS[place % len(COLOURS)]}"'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
