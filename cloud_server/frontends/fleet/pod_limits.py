"""Bounds what boxes say of their pods: for each box, and for all together."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024
SHARE_BYTES = 32 * KIB
"""What every box may have held of its pods, however much others have: twice what a plain box with ten units takes."""
MAX_LIST_BYTES = 8 * MIB
"""The longest list of pods that is read: 500 pods, the most that kubelets are run with, of 16 KiB each."""
MAX_POD_BYTES = 256 * KIB
"""The longest pod in such a list. All annotations of one together have at most 256 KiB in Kubernetes, and next to none
have a tenth of that; decoding one takes 2 ms.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLimits:
    """The settings; what a box has beyond them is left out, and its Node says so."""

    pods: int = 512
    """The most pods of one box; kubelets have 110 by default, and are run with up to 500."""
    namespaces: int = 64
    """The most namespaces that the pods of one box are in."""
    box_bytes: int = 2 * MIB
    """The most memory that the pods of one box take. 110 pods of two containers each take 1.3 MiB."""
    all_bytes: int = 256 * MIB
    """The memory that all boxes' pods take before boxes are held to SHARE_BYTES: 10,000 plain boxes with ten units
    each take 155 MiB.
    """
    read_bytes_per_s: int = 256 * KIB
    """How fast the list of one box is read over a while. A list of 1 MiB can so be read each 4 s."""
    history_bytes: int = 16 * MIB
    """The memory for changes that watches may still want."""
