"""How much of a limit is used: what each part with limits tells of itself, for the status and the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

_K = TypeVar("_K")


class LimitUse(NamedTuple):
    """How much of a limit is used now."""

    name: str
    """The key of the setting in `[limits]`."""
    limit: int
    used: int
    """What is used of it. Of a limit for each peer, or for each listener: by the one that uses most."""


def in_words(limits: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields what people are told of limits, given as in an answer of the admin API: those that are used, the fullest
    first, and how many are not.
    """
    shares = {str(one["name"]): int(one["used"]) / max(1, int(one["limit"])) for one in limits}
    used = sorted((one for one in limits if one["used"]), key=lambda one: -shares[str(one["name"])])
    for one in used:
        yield f"{one['name']}: {one['used']} of {one['limit']} ({shares[str(one['name'])]:.0%})"
    if rest := len(shares) - len(used):
        yield f"{rest} {'more ' if used else ''}{'are' if rest > 1 else 'is'} not used"


def one_less(counts: Counter[_K], peer: _K) -> None:
    """Counts one less for a peer, and keeps nothing of a peer that has none left."""
    counts[peer] -= 1
    if counts[peer] <= 0:
        del counts[peer]


def most(counts: Iterable[int]) -> int:
    """Returns the highest of counts, one for each peer; 0 without any."""
    return max(counts, default=0)
