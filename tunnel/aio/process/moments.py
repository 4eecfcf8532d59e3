"""Moments that somebody else has written as a number of seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(seconds: float) -> datetime:
    """Returns the moment so many seconds after 1970 began, in UTC.

    Raises:
        ValueError: it is beyond the years 1 to 9999, for which Python has three kinds of errors, by how far it is.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is no moment in time") from error
