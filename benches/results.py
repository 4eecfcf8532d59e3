"""What was measured, as it is kept: a JSON file with every sample, and with each group's own machine and time.

`latest.json` is part of the repository: docs/benchmarks.md is made of it. A short run goes to a file of its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Result:
    """One group's."""

    title: str
    machine: dict[str, Any]
    before: dict[str, Any]
    """Time and load averages."""
    after: dict[str, Any]
    samples: Samples
    """By figure; `figure | subject` where there are several subjects."""


def path(*, quick: bool) -> Path:
    """Where results are kept."""
    return FOLDER / ("quick.json" if quick else "latest.json")


def load(*, quick: bool) -> dict[str, Result]:
    """All that was kept, by group."""
    file = path(quick=quick)
    if not file.exists():
        return {}
    return {name: Result(**kept) for name, kept in json.loads(file.read_text()).items()}


def keep(name: str, result: Result, *, quick: bool) -> None:
    """Put a group's result in the place of its former one."""
    FOLDER.mkdir(exist_ok=True)
    kept = {**load(quick=quick), name: result}
    rounded = {each: asdict(one) | {"samples": _rounded(one.samples)} for each, one in kept.items()}
    path(quick=quick).write_text(json.dumps(rounded, indent=1) + "\n")


def _rounded(samples: Samples) -> Samples:
    return {name: [float(f"{value:.5g}") for value in values] for name, values in samples.items()}
