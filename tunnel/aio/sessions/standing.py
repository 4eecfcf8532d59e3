"""Tells how the sessions of a daemon stand, in one line for whoever supervises it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tunnel.aio.sessions.session import TunnelSession

LATE_S = 10.0
"""A timer that is late by more seconds than this is not driven any more: on a machine that swaps they are late by a
second or two.
"""
LOOKED_AT = 64
"""How many sessions are looked at, of thousands: what stands still is the loop or a thread, and so all of them."""


def stuck(sessions: Sequence[TunnelSession]) -> str:
    """Returns what shows that links are not looked after any more; empty when they are."""
    for session in random.sample(sessions, LOOKED_AT) if len(sessions) > LOOKED_AT else sessions:
        late_s = session.core.overdue_s(session.now())
        if late_s > LATE_S:
            return f"the timer of the session with {session.peer} is {late_s:.0f} s late"
    return ""


def linked(sessions: Sequence[TunnelSession]) -> str:
    """Returns in one line to whom an agent is linked, newest first."""
    peers = dict.fromkeys(session.peer for session in sessions if session.attached)
    return f"linked to {', '.join(peers)}" if peers else "no link to the cloud; the log says why"
