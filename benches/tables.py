"""Results as rows: minimum, median, maximum of each figure, and of its ratio to the same figure of other subjects."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benches.results import Result, Samples

OURS = "longline"


@dataclass(frozen=True, slots=True)
class Spread:
    """Of several samples."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.median, self.high))


def figure_of(name: str) -> str:
    """A sample's name without its subject."""
    return name.partition(" | ")[0]


def by_subject(samples: Samples) -> dict[str, Samples]:
    """Figures with several subjects: the samples of each subject, by figure."""
    figures: dict[str, Samples] = {}
    for name, values in samples.items():
        figure, bar, subject = name.partition(" | ")
        if bar:
            figures.setdefault(figure, {})[subject] = values
    return figures


def alone(samples: Samples) -> Samples:
    """Figures without subjects."""
    return {name: values for name, values in samples.items() if " | " not in name}


def ratio(samples: Samples, figure: str, other: str) -> Spread | None:
    """Ours through another's, round by round; None when either has none."""
    ours, theirs = samples.get(f"{figure} | {OURS}", []), samples.get(f"{figure} | {other}", [])
    pairs = [mine / its for mine, its in zip(ours, theirs, strict=False) if its]
    return Spread.of(pairs) if pairs else None


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def show(result: Result) -> None:
    """Print for people."""
    width = max(map(len, result.samples), default=0)
    print(f"{'':{width}} {'min':>8} {'median':>8} {'max':>8}   longline / this, median")
    places = {figure: place for place, figure in enumerate(dict.fromkeys(map(figure_of, result.samples)))}
    for name, values in sorted(result.samples.items(), key=lambda each: places[figure_of(each[0])]):
        figure, _, subject = name.partition(" | ")
        row = " ".join(f"{number(value):>8}" for value in Spread.of(values))
        against = ratio(result.samples, figure, subject) if subject and subject != OURS else None
        print(f"{name:{width}} {row}" + (f"   {number(against.median)}" if against else ""))
    loads = result.before["load_average"][0], result.after["load_average"][0]
    print(f"load average {loads[0]} before, {loads[1]} after, on {result.machine['cpus']} cores")
