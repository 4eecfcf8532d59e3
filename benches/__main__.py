"""`python -m benches [--quick]`: every probe several times; a table for people, and JSON beside it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from benches import probes
from benches.rig import rig
from tests.support.relay_pipe import Shape

RESULTS = Path(__file__).parent / "results"
MB = 1_000_000
LINK_BYTES_PER_S = 10e6 / 8
LINK_DELAY_S = 0.025
ROUTER_QUEUE_BYTES = MB

Samples = dict[str, list[float]]


def main() -> None:
    """Measure, print, write."""
    words = argparse.ArgumentParser(prog="make bench")
    words.add_argument("--quick", action="store_true", help="once and short: to see that it runs")
    quick = words.parse_args().quick
    groups = {"fast link": _fast_link(quick), "10 Mbit/s, 50 ms, 1 MB router queue": _slow_link(quick)}
    _print(groups)
    _write(groups)


def _fast_link(quick: bool) -> Samples:
    rounds, size_bytes, seconds, count = (1, 200 * MB, 1.0, 160) if quick else (5, 1000 * MB, 3.0, 800)
    samples: Samples = defaultdict(list)
    with rig() as made:
        _add(samples, {f"idle {name}": value for name, value in probes.memory(made).items()})
        for _ in range(rounds):
            _add(samples, probes.throughput(made, size_bytes))
            _add(samples, probes.latency(made, seconds))
            _add(samples, probes.connections(made, count))
            _add(samples, probes.kubectl_exec(made))
        _add(samples, {f"loaded {name}": value for name, value in probes.memory(made).items()})
        for _ in range(rounds):
            _add(samples, probes.start_up(made))
    return samples


def _slow_link(quick: bool) -> Samples:
    samples: Samples = defaultdict(list)
    with rig(relay=True) as made:
        assert made.link is not None
        shape = Shape(delay_s=LINK_DELAY_S, rate_bytes_s=LINK_BYTES_PER_S, queue_bytes=ROUTER_QUEUE_BYTES)
        made.link.shape(up=shape, down=shape)
        for _ in range(1 if quick else 3):
            _add(samples, probes.slow_link(made, LINK_BYTES_PER_S, 8.0 if quick else 15.0))
    return samples


def _add(samples: Samples, figures: probes.Figures) -> None:
    for name, value in figures.items():
        samples[name].append(value)


def _print(groups: dict[str, Samples]) -> None:
    for group, samples in groups.items():
        print(f"\n{group}\n{'':36} {'min':>9} {'median':>9} {'max':>9}")
        for name, values in samples.items():
            row = (min(values), statistics.median(values), max(values))
            print(f"{name:36} " + " ".join(f"{value:9.3g}" if value < 100 else f"{value:9.0f}" for value in row))


def _write(groups: dict[str, Samples]) -> None:
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    (RESULTS / "latest.json").write_text(
        json.dumps(
            {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "commit": commit.strip(),
                "python": platform.python_version(),
                "kernel": platform.release(),
                "cpus": os.cpu_count(),
                "load_average": os.getloadavg(),
                "samples": groups,
            },
            indent=1,
        )
    )
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; all samples: {RESULTS / 'latest.json'}")


if __name__ == "__main__":
    main()
