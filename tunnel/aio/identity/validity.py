"""Says until when a certificate is good, and how near its end is, with the same thresholds and words everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import structlog

from tunnel.core.wire.faults import CERTIFICATE_ENDS_SOON, CERTIFICATE_EXPIRED

_log = structlog.get_logger("tunnel.certificates")

DAY = timedelta(days=1)
NOT_YET_VALID, HAS_EXPIRED = 9, 10
"""The numbers of X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED in <openssl/x509_vfy.h>."""
TIME_FAULTS = (NOT_YET_VALID, HAS_EXPIRED)
"""The faults of verification that a wrong clock makes, too."""
TELL_EVERY = DAY
"""How often the log repeats that an end is near."""


class Standing(Enum):
    """The stages of a certificate's life."""

    NOT_YET = "not valid yet"
    GOOD = "good"
    NEAR = "near its end"
    LAST = "about to end"
    OVER = "expired"


@dataclass(frozen=True, slots=True)
class Margin:
    """How long before its end a certificate counts as near it, but never more than a part of a short life."""

    near: timedelta
    last: timedelta


LEAF = Margin(near=30 * DAY, last=7 * DAY)
AUTHORITY = Margin(near=825 * DAY, last=90 * DAY)
"""The margin of an authority, which is replaced in years: from 825 days before its end on, what it signs for servers is
cut short.
"""
_NEAR_PART, _LAST_PART = 1 / 4, 1 / 10
"""The parts of a life that a margin is at most. What renews itself does so at two thirds of its life: with a quarter
left, that has failed for a while.
"""


@dataclass(frozen=True, slots=True)
class Validity:
    """The time in which a certificate is valid."""

    not_before: datetime
    not_after: datetime

    def standing(self, now: datetime, margin: Margin = LEAF) -> Standing:
        """Returns the stage of life that it is in at `now`."""
        if now < self.not_before:
            return Standing.NOT_YET
        left, life = self.not_after - now, self.not_after - self.not_before
        if left <= timedelta(0):
            return Standing.OVER
        if left < min(margin.last, life * _LAST_PART):
            return Standing.LAST
        return Standing.NEAR if left < min(margin.near, life * _NEAR_PART) else Standing.GOOD

    def days_left(self, now: datetime) -> float:
        """Returns how many days are left until its end; less than 0 behind it."""
        return (self.not_after - now) / DAY

    def part(self, fraction: float) -> datetime:
        """Returns the moment at which this fraction of its life is over."""
        return self.not_before + (self.not_after - self.not_before) * fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A certificate whose end somebody has to know."""

    name: str
    """A short name: the label of its figure in the metrics."""
    what: str
    """Its name for people, with its file: `the server's certificate /var/lib/cloud-server/server.crt`."""
    validity: Validity
    remedy: str
    """What to do about its end."""
    margin: Margin = LEAF
    heals: bool = False
    """Whether even one that has expired is renewed by itself, at the next start at the latest."""

    def standing(self, now: datetime) -> Standing:
        """Returns the stage of its life that it is in at `now`."""
        return self.validity.standing(now, self.margin)

    def as_json(self, now: datetime) -> dict[str, object]:
        """Returns it as the admin API shows it; its remedy only where something is to be done."""
        return {
            "name": self.name,
            "not_after": self.validity.not_after,
            "days_left": round(self.validity.days_left(now), 2),
            "remedy": None if self.standing(now) is Standing.GOOD else self.remedy,
        }

    def told(self, now: datetime) -> str:
        """Returns in one line how long it is good, or what is wrong with it."""
        match self.standing(now):
            case Standing.NOT_YET:
                begin = date(self.validity.not_before)
                return f"{self.what} is not valid before {begin}, and {clock_says(now)}: is it right?"
            case Standing.OVER:
                return f"{self.what} expired on {date(self.validity.not_after)} ({clock_says(now)}): {self.remedy}"
            case Standing.GOOD:
                return f"{self.what} is good for {span(self.validity.not_after - now)}"
        left = span(self.validity.not_after - now)
        return f"{self.what} expires in {left}, on {date(self.validity.not_after)}: {self.remedy}"


class ExpiryLog:
    """Logs each end that is near: when that is first seen, when it gets worse, and each day."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[Standing, datetime]] = {}

    def look(self, certificates: Iterable[Watched], now: datetime) -> list[Watched]:
        """Logs what is due at `now`, and returns the certificates that it told of."""
        told = []
        for one in certificates:
            standing = one.standing(now)
            if standing is Standing.GOOD:
                self._told.pop(one.name, None)
                continue
            before = self._told.get(one.name)
            # A clock that was set back must not silence it.
            if before is not None and before[0] is standing and timedelta(0) <= now - before[1] < TELL_EVERY:
                continue
            self._told[one.name] = (standing, now)
            told.append(one)
            level: Callable[..., object] = _log.warning if standing is Standing.NEAR else _log.error
            fault = CERTIFICATE_EXPIRED if standing in (Standing.OVER, Standing.NOT_YET) else CERTIFICATE_ENDS_SOON
            level(
                "certificate",
                code=fault.code,
                certificate=one.name,
                reason=one.told(now),
                ends=one.validity.not_after.isoformat(),
            )
        return told


def check(certificates: Iterable[Watched], now: datetime) -> tuple[list[str], list[str]]:
    """Returns the lines of the certificates that can be used, and those of the ones that cannot.

    It is for commands that check a configuration. One that renews itself counts as usable whatever its time.
    """
    lines: list[str] = []
    faults: list[str] = []
    for one in certificates:
        broken = one.standing(now) in (Standing.NOT_YET, Standing.OVER) and not one.heals
        (faults if broken else lines).append(one.told(now))
    return lines, faults


def date(moment: datetime) -> str:
    """Returns a moment for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def clock_says(now: datetime | None = None) -> str:
    """Returns the half sentence that puts this machine's clock beside a date; None takes the time as it is now."""
    return f"this machine's clock says {date(now or datetime.now(UTC))}"


def span(length: timedelta) -> str:
    """Returns a length of time in its largest unit: `550 days`, `3 days`, `11 hours`, `4 minutes`.

    The sign is left out.
    """
    seconds = abs(length.total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= (2 * size if unit == "day" else size):
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"
