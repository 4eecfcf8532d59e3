"""Loopback: how much of a processor the tunnel needs, and how long a byte waits in it."""

from __future__ import annotations

from collections import defaultdict

from benches import probes
from benches.results import Samples
from benches.rig import rig

NAME = "fast link (loopback)"
MB = 1_000_000


def measure(quick: bool) -> Samples:
    """Round by round."""
    rounds, size_bytes, seconds, count = (1, 200 * MB, 1.0, 160) if quick else (5, 1000 * MB, 3.0, 800)
    samples: Samples = defaultdict(list)
    with rig() as made:
        _add(samples, {f"idle {name}": value for name, value in probes.memory(made).items()})
        for _ in range(rounds):
            _add(samples, probes.throughput(made, size_bytes))
            _add(samples, probes.latency(made, seconds))
            _add(samples, probes.connections(made, count))
        _add(samples, {f"loaded {name}": value for name, value in probes.memory(made).items()})
    return samples


def _add(samples: Samples, figures: probes.Figures) -> None:
    for name, value in figures.items():
        samples[name].append(value)
