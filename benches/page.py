"""docs/benchmarks.md: the tables between its markers, and the plots beside it. The text around them is written by hand.

`python -m benches.page` makes them again from the samples that are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from benches import results, svg
from benches.results import Result, Samples
from benches.tables import OURS, Spread, alone, by_subject, number, ratio

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
PLOTS = DOCS / "bench"
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write() -> None:
    """Bring the page up to what is kept."""
    kept = results.load(quick=False)

    def fill(match: re.Match[str]) -> str:
        result = kept.get(match[2])
        return match[1] + ("\n".join(_group(result)) if result else "Not measured yet.") + "\n" + match[3]

    PAGE.write_text(MARKED.sub(fill, PAGE.read_text()))
    PLOTS.mkdir(exist_ok=True)
    for name, picture in _pictures(kept):
        (PLOTS / f"{name}.svg").write_text(picture)


# The tables


def _group(result: Result) -> Iterator[str]:
    yield ""
    yield _conditions(result)
    yield ""
    plain = alone(result.samples)
    if plain:
        yield from _table(
            ["", "min", "median", "max"], [[name, *map(number, Spread.of(plain[name]))] for name in plain]
        )
    for subjects, figures in _alike(result.samples).items():
        its = by_subject(result.samples)
        rows = [[figure, *(_range(its[figure].get(subject)) for subject in subjects)] for figure in figures]
        yield from _table(["median (min to max)", *subjects], rows)
        if OURS in subjects:
            others = [subject for subject in subjects if subject != OURS]
            yield from _table([f"{OURS} / other", *others], _ratios(result.samples, figures, others))


def _alike(samples: Samples) -> dict[tuple[str, ...], list[str]]:
    """Figures that share a table: those whose subjects are among the subjects of the first."""
    tables: dict[tuple[str, ...], list[str]] = {}
    figures = by_subject(samples)
    for figure in sorted(figures, key=lambda each: -len(figures[each])):
        subjects = tuple(figures[figure])
        table = next((each for each in tables if set(subjects) <= set(each)), subjects)
        tables.setdefault(table, []).append(figure)
    order = list(figures)
    return {subjects: sorted(each, key=order.index) for subjects, each in tables.items()}


def _conditions(result: Result) -> str:
    on, before, after = result.machine, result.before, result.after
    changed = ", with changes" if on["changed"] else ""
    return (
        f"{before['at'][:16].replace('T', ' ')} UTC, commit {on['commit']}{changed}; {on['cpu']}, {on['cpus']} cores, "
        f"{on['memory_gb']:g} GB, Linux {on['kernel'].split('-')[0]}, CPython {on['python']}, gRPC {on['grpc']}; "
        f"load average {before['load_average'][0]:g} before, {after['load_average'][0]:g} after."
    )


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(row) + " |"
    yield ""


def _range(values: list[float] | None) -> str:
    return _spread(Spread.of(values)) if values else ""


def _spread(spread: Spread) -> str:
    low, median, high = map(number, spread)
    return median if low == high else f"**{median}** ({low} to {high})"


def _ratios(samples: Samples, figures: list[str], others: list[str]) -> Iterator[list[str]]:
    for figure in figures:
        spreads = [ratio(samples, figure, other) for other in others]
        if any(spreads):
            yield [figure, *(_spread(spread) if spread else "" for spread in spreads)]


# The plots


def _pictures(kept: dict[str, Result]) -> Iterator[tuple[str, str]]:
    if (fast := kept.get("fast")) is not None:
        figures = by_subject(fast.samples)
        subjects = list(dict.fromkeys(subject for its in figures.values() for subject in its))
        panels = [
            svg.Bars(figure, {subject: Spread.of(its[subject]) if subject in its else None for subject in subjects})
            for figure, its in figures.items()
        ]
        yield "fast", svg.picture(panels, columns=2, width=480)
    if (tradeoff := kept.get("tradeoff")) is not None:
        yield "tradeoff", svg.picture(list(_tradeoff(tradeoff.samples)), columns=2, width=480)
    changes = results.FOLDER / "link-changes.json"
    if changes.exists():
        yield "link-changes", svg.picture(list(_changes(changes)), columns=1, width=760)


def _tradeoff(samples: Samples) -> Iterator[svg.Curve]:
    figures = by_subject(samples)
    across = "download, 1 connection, MB/s"
    for figure in ("echo beside 4 downloads, p50, ms", "echo beside 4 downloads, p99, ms"):
        points = {
            subject: (Spread.of(figures[across][subject]).median, Spread.of(values).median)
            for subject, values in figures[figure].items()
        }
        yield svg.Curve(f"{figure}, by packet size", across, points)


def _changes(file: Path) -> Iterator[svg.Lines]:
    for name, series in json.loads(file.read_text()).items():
        rates = [(place * series["bin_s"], rate) for place, rate in enumerate(series["rate_mbit"])]
        trips = [(at, round_trip) for at, round_trip in series["rtt_ms"]]
        end = max(rates[-1][0], trips[-1][0])
        allowed = _steps([(at, link[0]) for at, *link in series["links"]], end)
        yield svg.Lines(f"{name}: a copy, Mbit/s", {"copy": rates, "link": allowed})
        least = _steps([(at, link[1] * 1e3) for at, *link in series["links"]], end)
        yield svg.Lines(f"{name}: keystrokes beside it, ms", {"echo": trips, "link": least})


def _steps(points: list[svg.Point], end: float) -> list[svg.Point]:
    """A value that holds until the next."""
    ends = [*(at for at, _ in points[1:]), end]
    return [step for (at, value), until in zip(points, ends, strict=True) for step in ((at, value), (until, value))]


if __name__ == "__main__":
    write()
