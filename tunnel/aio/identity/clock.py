"""Says when a clock is wrong: to a person it looks like a token or a certificate that has run out."""

from __future__ import annotations

from datetime import timedelta

from tunnel.aio.identity.validity import clock_says, span

TOLERANCE = timedelta(minutes=2)
"""By how much a clock may be wrong without a word; certificates begin five minutes early for that."""
SET_IT = "set it (timedatectl set-ntp true, or chronyc makestep)"


def clock_fault(ahead: timedelta) -> str | None:
    """Returns what is wrong with this machine's clock, for people; None when it is right.

    `ahead` is by how much it is ahead of the server's; negative when it is behind.
    """
    if abs(ahead) <= TOLERANCE:
        return None
    direction = "ahead of" if ahead > timedelta(0) else "behind"
    return f"this machine's clock is {span(ahead)} {direction} the server's ({clock_says()}): {SET_IT}"
