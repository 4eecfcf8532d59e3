"""What a keystroke pays for the rate of the bulk beside it: the same daemons with packets of other sizes.

A packet is sealed, written and read in one piece, so that all else waits for it; each costs the same whatever its size.
The queue that pacing allows, the other half of the wait, is a packet's time and 2 ms (`tunnel/core/path/pacing.py`).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import ExitStack

from benches.clients import Clients
from benches.fast import busy_echo, one, one_round
from benches.results import Samples
from benches.rig import rig
from benches.subject import Subject
from tunnel.core.wire.limits import KIB, Limits

NAME = "rate against echo: packets of other sizes"
SIZES_BYTES = tuple(kib * KIB for kib in (64, 128, 256, 512, 768))


def title(size_bytes: int) -> str:
    """A size as a subject."""
    default = " (default)" if size_bytes == Limits().max_packet_bytes else ""
    return f"{size_bytes // KIB} KiB{default}"


def measure(quick: bool) -> Samples:
    """Round by round, all sizes in each."""
    rounds, seconds = (1, 0.3) if quick else (5, 2.0)
    samples: Samples = defaultdict(list)
    with ExitStack() as stack:
        clients = stack.enter_context(Clients(5))
        them = []
        for size_bytes in SIZES_BYTES:
            made = stack.enter_context(
                rig(through=(sys.executable, "-m", "benches.tuned", f"max_packet_bytes={size_bytes}"))
            )
            pids = (made.cluster.server.pid,), (made.box.agent.pid,)
            them.append(Subject(title(size_bytes), made.tunnelled, *pids))
        for number in range(rounds):
            one_round(number, (one, busy_echo), them, clients, seconds, samples)
    return samples
