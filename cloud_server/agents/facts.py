"""Reads what a box told of itself that only it can know. These are claims of the box, bounded on the wire, and shown as
claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from protos import tunnel_pb2

_LATEST_S = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
"""The latest time that is taken over, in seconds since 1970: a box whose clock is wrong may say any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is true of a box, or was until a short while ago, as the box says."""

    code: str
    """The code of the fact's cause, such as `LL2018`."""
    text: str
    """A text for people, as the box put it. It may hold control sequences that a terminal obeys."""
    since: datetime
    """When it began, by the box's clock."""
    until: datetime | None = None
    """When it ended, by the box's clock; None when it is still true."""


def facts_of(node: tunnel_pb2.Node | None) -> list[Fact]:
    """Returns what a box told of itself, the latest first; an empty list for a box that never told anything."""
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
