"""What a person waits for: a command on a box, an agent that starts."""

from __future__ import annotations

from collections import defaultdict

from benches import probes
from benches.results import Samples
from benches.rig import rig

NAME = "commands"


def measure(quick: bool) -> Samples:
    """Round by round."""
    samples: Samples = defaultdict(list)
    with rig() as made:
        for _ in range(2 if quick else 10):
            for name, value in {**probes.kubectl_exec(made), **probes.start_up(made)}.items():
                samples[name].append(value)
    return samples
