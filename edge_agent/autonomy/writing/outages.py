"""Remembers when the API server was away, until that was told. It is pure.

Many short outages are told as one: a link that comes and goes is one thing to know, and not a thousand.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import NamedTuple

from tunnel.core.wire.spoken import spoken_s

MAX_REASON_CHARS = 200


class Outages:
    """Those that were not told yet, among them the one that goes on."""

    def __init__(self) -> None:
        """Begins with none."""
        self.since: datetime | None = None
        """Since when the API server is away; None while it is reached."""
        self._reason = ""
        self._over: _Over | None = None
        self.last = ""
        """What was told last; empty when nothing was."""

    @property
    def are_over(self) -> bool:
        """Returns whether there are some to be told, all of which are over."""
        return self.since is None and self._over is not None

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """Returns when the first of those that are over began, and when the last ended; None when there are none."""
        return (self._over.begin, self._over.end) if self._over is not None else None

    @property
    def count(self) -> int:
        """Returns how many are over and not told yet."""
        return self._over.times if self._over is not None else 0

    def began(self, now: datetime, reason: str) -> None:
        """Takes that the API server is away. One that goes on already goes on."""
        if self.since is None:
            self.since, self._reason = now, reason[:MAX_REASON_CHARS]

    def ended(self, now: datetime) -> None:
        """Takes that it is reached."""
        if self.since is None:
            return
        seconds = max((now - self.since).total_seconds(), 0.0)  # a clock that was set says nothing
        before = self._over
        self._over = _Over(
            begin=before.begin if before is not None else self.since,
            end=now,
            seconds=seconds + (before.seconds if before is not None else 0.0),
            times=1 + (before.times if before is not None else 0),
            reason=self._reason,
        )
        self.since = None

    def told(self) -> None:
        """Takes that all that are over were told."""
        self.last, self._over = self.text(), None

    def text(self) -> str:
        """Returns what is to be told of those that are over, for a person: `from ... to ... (70 s): no answer`."""
        over = self._over
        if over is None:
            return ""
        if over.times == 1:
            return f"from {stamp(over.begin)} to {stamp(over.end)} ({_spoken(over.seconds)}): {over.reason}"
        lasted = f"{_spoken(over.seconds)} in all"
        return f"{over.times} times from {stamp(over.begin)} to {stamp(over.end)} ({lasted}), last: {over.reason}"

    # What lasts

    def raw(self) -> bytes:
        """Returns what is to be known after a restart."""
        since = self.since.isoformat() if self.since is not None else None
        over = self._over
        told = [over.begin.isoformat(), over.end.isoformat(), *over[2:]] if over is not None else None
        return json.dumps([since, self._reason, told, self.last]).encode()

    def restore(self, raw: bytes) -> None:
        """Takes what `raw` returned in an earlier process.

        Raises:
            ValueError: it is something else.
        """
        try:
            since, reason, over, last = json.loads(raw)
            self.since = datetime.fromisoformat(since) if since else None
            self._reason, self.last = str(reason), str(last)
            if over:
                begin, end, seconds, times, why = over
                self._over = _Over(
                    datetime.fromisoformat(begin), datetime.fromisoformat(end), float(seconds), int(times), str(why)
                )
        except TypeError as error:
            raise ValueError("it is no record of outages") from error


def stamp(moment: datetime) -> str:
    """Returns a moment as Kubernetes writes it: to the second, in UTC."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


# Internal


def _spoken(seconds: float) -> str:
    return spoken_s(round(seconds, 1))


class _Over(NamedTuple):
    """Outages that are over, as one."""

    begin: datetime
    end: datetime
    seconds: float
    times: int
    reason: str
    """Of the last of them."""
