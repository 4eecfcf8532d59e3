"""Keeps telling systemd, while a daemon runs, how it is: one line for `systemctl status`, and signs of life.

The line changes with the daemon. The signs, which `WatchdogSec=` of the unit asks for, are sent only while links are
looked after: a process whose loop turns and whose links stand still looks well from outside, and is what they are for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

import structlog

from tunnel.aio.process.sd_notify import notify
from tunnel.core.wire.faults import LINKS_STAND_STILL

LOOK_S = 1.0
"""How many seconds a change may wait until it is told; a thousand agents that come back in a second are one message."""

_log = structlog.get_logger("tunnel.systemd")


async def keep_told(status: Callable[[], str], stuck: Callable[[], str], environment: Mapping[str, str]) -> None:
    """Tells systemd until it is cancelled; waits for ever where systemd did not start the daemon.

    Args:
        status: returns how the daemon is, in one line, such as `3 agents connected of 4`.
        stuck: returns why data does not get through though it should; empty while it does.
        environment: the environment of the process.
    """
    if not environment.get("NOTIFY_SOCKET"):
        await asyncio.Event().wait()
    loop = asyncio.get_running_loop()
    sign_every_s = watchdog_s(environment) / 2
    next_sign_s = loop.time()
    told_line = told_stuck = ""
    while True:
        states = []
        if (line := status()) != told_line:
            states.append(f"STATUS={line}")
            told_line = line
        if sign_every_s and loop.time() >= next_sign_s:
            why = stuck()
            if not why:
                states.append("WATCHDOG=1")
                next_sign_s = loop.time() + sign_every_s
            elif not told_stuck:
                _log.error("no sign of life for systemd: links stand still", code=LINKS_STAND_STILL.code, reason=why)
            told_stuck = why
        if states:
            notify("\n".join(states))
        await asyncio.sleep(min(LOOK_S, sign_every_s or LOOK_S))


def watchdog_s(environment: Mapping[str, str]) -> float:
    """Returns how many seconds systemd waits for a sign of life of this process; 0.0 when it wants none.

    See sd_watchdog_enabled(3): a process that it does not name is not asked.
    """
    usec, own_pid = environment.get("WATCHDOG_USEC", ""), str(os.getpid())
    if not usec.isascii() or not usec.isdigit() or environment.get("WATCHDOG_PID", own_pid) != own_pid:
        return 0.0
    return int(usec) / 1_000_000
