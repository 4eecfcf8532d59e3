"""What clients may make the built-in kubelet do at once; each number with its reason."""

from __future__ import annotations

from typing import NamedTuple


class KubeletLimits(NamedTuple):
    """What all clients together may have. Whoever comes above a limit is refused, and may try again."""

    commands: int = 128
    """Each command may hold 0.5 MiB of the agent's memory, and a process group on the box."""
    logs: int = 128
    """Each log that is read may hold 0.2 MiB of the agent's memory and, for a unit, a journalctl."""
    port_forwards: int = 32
    """Each client may forward 128 pairs of streams, with 32 KiB of input each."""
    head_bytes: int = 4 * 1024 * 1024
    """A command line may be 1 MiB long, and rides in the head of its request."""
