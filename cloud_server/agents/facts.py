"""What a box told of itself that only it can know: claims of the box, bounded on the wire, and shown as such."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from protos import tunnel_pb2

_LATEST_S = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
"""A box whose clock is wrong may say any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is so on a box, or was until a short while ago."""

    code: str
    """Of its cause: `LL2018`."""
    text: str
    """For people, as the box put it; not cleaned of what terminals obey."""
    since: datetime
    """By the box's clock, as the next."""
    until: datetime | None = None
    """None: it is still so."""


def facts_of(node: tunnel_pb2.Node | None) -> list[Fact]:
    """Returns what a box told of itself, the latest first; nothing for one that never did."""
    return [
        Fact(
            code=fact.code,
            text=fact.text,
            since=_time(fact.since_s),
            until=_time(fact.until_s) if fact.until_s else None,
        )
        for fact in (node.facts if node is not None else ())
    ]


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(min(seconds, _LATEST_S), UTC)
