"""Finds when lines of a log file were written, from what they say themselves, and where in a file a time begins.

A file keeps no times of its lines; most programs write them in front. What is read here are the forms that cannot be
taken for anything else: ISO 8601 and RFC 3339 near the start of a line or as the time of a JSON object, that of web
servers (`[31/Jan/2026:12:00:00 +0100]`), and syslog's (`Jan 31 12:00:00`), whose year is the latest that can be.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, timezone

from edge_agent.hostkubelet.lines import with_ends

MAX_LOOK_BYTES = 4096
"""How many bytes of a line are looked at."""
LEAST_BYTES = 15
"""The fewest bytes of a line with a time in it: `Jan 31 12:00:00`."""
START_BYTES = 64
"""The bytes from the start of a line within which its own time is; what comes later may be a time that it speaks of."""
BLOCK_BYTES = 64 * 1024
UNTIMED_BYTES = 10 * 1024 * 1024
"""How many bytes from the end of a file whose lines have no times are given for `--since`: what kubelets let a log grow
to before they rotate it (containerLogMaxSize)."""
_ZONE_STEP = timedelta(minutes=15)
"""Time zones differ by a multiple of it."""
_ZONE_MAX = timedelta(hours=14)
_ZONE_SLACK = timedelta(minutes=2)
"""How much the last line's time and that of the file may differ beside the zone."""

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH = b"(" + b"|".join(_MONTHS) + b")"
_CLOCK = rb"(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
_ISO_TEXT = rb"(\d{4})[-/](\d\d)[-/](\d\d)[T ]" + _CLOCK + rb" ?(Z|UTC|[+-]\d\d:?\d\d)?"
_ISO = re.compile(_ISO_TEXT)
_JSON = re.compile(rb'"(?:time|ts|timestamp|@timestamp)" ?: ?"' + _ISO_TEXT)
_WEB = re.compile(rb"\[(\d\d)/" + _MONTH + rb"/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\]")
_SYSLOG = re.compile(rb"(?:<\d{1,3}>)?" + _MONTH + rb" ([ 0-3]?\d) " + _CLOCK)


class LineTimes:
    """Reads the times of one file's lines."""

    def __init__(self, near: datetime, skew: timedelta = timedelta()) -> None:
        """Takes what is known of the file.

        Args:
            near: when the file was last written to; it stands for the time of what has none.
            skew: what is added to times that name no zone, beside the box's own zone.
        """
        self.near = near
        self._skew = skew

    @classmethod
    def of_file(cls, fd: int, size: int, written_at: datetime) -> LineTimes:
        """Makes the reader of an open file's times.

        The file's last line was written when the file was, which tells the zone of times that name none.

        Args:
            fd: the file.
            size: its bytes.
            written_at: its time of modification.
        """
        times = cls(written_at)
        start = max(0, size - BLOCK_BYTES)
        last = None
        for line in os.pread(fd, size - start, start).split(b"\n"):
            last = times.of(line) or last
        if last is None:
            return times
        apart = written_at - last
        zone = round(apart / _ZONE_STEP) * _ZONE_STEP
        return cls(written_at, zone if abs(zone) <= _ZONE_MAX and abs(apart - zone) <= _ZONE_SLACK else timedelta())

    def of(self, line: bytes) -> datetime | None:
        """Returns when a line says that it was written, in UTC; None where it does not."""
        if len(line) < LEAST_BYTES:
            return None
        try:
            return self._parse(line[:MAX_LOOK_BYTES])
        except (ValueError, OverflowError):  # the 31st of February
            return None

    def offset_since(self, fd: int, size: int, since: datetime) -> int:
        """Returns where in the file the lines begin that were written at `since` or later.

        Lines follow each other in time, so that a file of any size takes few reads. One whose lines have no times is
        given whole, up to UNTIMED_BYTES, if it was written to since then.
        """
        if self.near < since:
            return size
        low, high = 0, size
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            found = self.first_time(fd, middle, high)
            if found is None and is_hole(os.pread(fd, min(BLOCK_BYTES, high - middle), middle)):
                low = middle  # what was written comes behind it
            elif found is None:
                high = middle  # nothing to go by behind it
            elif found < since:
                low = middle
            else:
                high = middle
        return self._scan(fd, low, size, since)

    def first_time(self, fd: int, start: int, end: int) -> datetime | None:
        """Returns the first time that lines tell between two places, within BLOCK_BYTES; None if they tell none."""
        lines = os.pread(fd, min(BLOCK_BYTES, end - start), start).split(b"\n")
        return next((time for line in lines if (time := self.of(line))), None)

    # Internal

    def _scan(self, fd: int, start: int, size: int, since: datetime) -> int:
        """Returns the exact place, which is within two blocks behind `start`."""
        data = os.pread(fd, 2 * BLOCK_BYTES, start)
        offset = start + len(data) - len(data.lstrip(b"\0"))
        if start > 0 and offset == start:  # in the middle of a line
            offset = start + data.find(b"\n") + 1
        any_time = False
        for line in with_ends(data[offset - start :]):
            time = self.of(line)
            any_time = any_time or time is not None
            if time is not None and time >= since:
                return offset
            offset += len(line)
        if any_time:
            return offset
        return self._line_start(fd, size - UNTIMED_BYTES) if size > UNTIMED_BYTES else 0

    def _line_start(self, fd: int, position: int) -> int:
        return position + os.pread(fd, BLOCK_BYTES, position).find(b"\n") + 1

    def _parse(self, line: bytes) -> datetime | None:
        if found := _ISO.search(line, 0, START_BYTES) or _JSON.search(line):
            year, month, day, *clock, fraction, zone = found.groups()
            return self._moment(int(year), int(month), int(day), clock, fraction, zone)
        if found := _WEB.search(line):
            day, month, year, *clock, zone = found.groups()
            return self._moment(int(year), _MONTHS.index(month) + 1, int(day), clock, None, zone)
        if found := _SYSLOG.match(line):
            month, day, *clock, fraction = found.groups()
            return self._latest(_MONTHS.index(month) + 1, int(day), clock, fraction)
        return None

    def _latest(self, month: int, day: int, clock: list[bytes], fraction: bytes | None) -> datetime:
        limit = self.near + timedelta(days=1)
        moment = self._moment(limit.year, month, day, clock, fraction, None)
        return moment if moment <= limit else self._moment(limit.year - 1, month, day, clock, fraction, None)

    def _moment(
        self, year: int, month: int, day: int, clock: list[bytes], fraction: bytes | None, zone: bytes | None
    ) -> datetime:
        hour, minute, second = map(int, clock)
        microsecond = int((fraction or b"").ljust(6, b"0")[:6] or 0)
        moment = datetime(year, month, day, hour, minute, min(second, 59), microsecond)  # noqa: DTZ001 - see below
        if zone is None:
            return moment.astimezone(UTC) + self._skew  # the box's own zone
        return moment.replace(tzinfo=_zone(zone)).astimezone(UTC)


def is_hole(block: bytes) -> bool:
    """Returns whether a block has only zero bytes, as where nothing was ever written.

    A file that is emptied under a writer that keeps its place has such a hole of any size in front of what comes next
    (logrotate's copytruncate makes such files).
    """
    return block.count(0) == len(block)


def _zone(text: bytes) -> timezone:
    if text in (b"Z", b"UTC"):
        return UTC
    sign = -1 if text.startswith(b"-") else 1
    hours, minutes = int(text[1:3]), int(text[-2:])
    return timezone(sign * timedelta(hours=hours, minutes=minutes))
