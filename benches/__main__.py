"""`python -m benches [--quick] [--only NAME]`: groups of probes, a table for people, every sample as JSON.

A group is a module of this package with a `NAME` for people and `measure(quick)`, which returns samples by figure. A
figure is named with its unit, as in `echo p50, ms`; one that is measured on several subjects has the subject behind a
bar, as in `echo p50, ms | direct`. Samples at one place of their lists are of one round, so that their ratio is fair.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from typing import Protocol, cast

from benches import page, results, tables
from benches.machine import machine, moment

GROUPS = ("fast", "tradeoff", "commands", "links", "scale", "rights", "standing")
"""Modules of this package, in the order of the tables."""


class Group(Protocol):
    """What each of these modules has."""

    NAME: str
    """For people: what kind of link or load."""

    def measure(self, quick: bool) -> dict[str, list[float]]:
        """Samples by figure; `quick` is once and short."""
        ...


def main() -> None:
    """Measure, print, keep. A group that fails costs the others nothing, and ends this with 1."""
    words = argparse.ArgumentParser(prog="make bench", description="Figures of real daemons on this machine.")
    words.add_argument("--quick", action="store_true", help="once and short: to see that it runs")
    words.add_argument("--only", action="append", choices=GROUPS, default=[], metavar="NAME", help=", ".join(GROUPS))
    options = words.parse_args()
    failed: list[str] = []
    for name in options.only or GROUPS:
        group = cast("Group", importlib.import_module(f"benches.{name}"))
        print(f"\n== {group.NAME}", flush=True)
        before = moment()
        try:
            samples = dict(group.measure(options.quick))
        except Exception:  # noqa: BLE001 - whatever it is, it is told, and nothing is kept
            traceback.print_exc()
            failed.append(name)
            continue
        done = results.Result(group.NAME, machine(), before, moment(), samples)
        tables.show(done)
        results.keep(name, done, quick=options.quick)
    print(f"\nAll samples: {results.path(quick=options.quick)}")
    if not options.quick:
        page.write()
    if failed:
        sys.exit(f"failed, and not kept: {', '.join(failed)}")


if __name__ == "__main__":
    main()
