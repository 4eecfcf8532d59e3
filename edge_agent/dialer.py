"""Connects to a target that the policy permits: all its addresses, both families in a race, within the opener's
deadline.

The race is Happy Eyeballs (RFC 8305): families alternate, and the next address is tried 250 ms after the one before,
or at once when that failed.
"""

from __future__ import annotations

import asyncio
import errno
import os
from itertools import chain, zip_longest

from edge_agent.policy import Policy
from tunnel.aio.conn import Conn
from tunnel.core.errors import Code, OpenRefused
from tunnel.core.target import TcpTarget
from tunnel.core.target_rule import Address

ATTEMPT_DELAY_S = 0.25
"""RFC 8305 section 5, "Connection Attempt Delay"."""
ANSWER_MARGIN_S = 0.2
"""The refusal should reach the opener before its own deadline does."""

_CODES = {errno.ECONNREFUSED: Code.REFUSED, errno.ETIMEDOUT: Code.DEADLINE}


async def dial(target: TcpTarget, policy: Policy, deadline_s: float) -> tuple[Conn, str]:
    """Connect; returns the connection and the address that answered. Cancelled, it leaves no socket behind.

    Raises:
        OpenRefused: NOT_ALLOWED, NAME_NOT_FOUND, REFUSED, UNREACHABLE or DEADLINE.
    """
    try:
        async with asyncio.timeout(max(0.05, deadline_s - ANSWER_MARGIN_S)):
            addresses = await policy.permitted(target)
            return await _race(_interleave(addresses), target)
    except TimeoutError:
        raise OpenRefused(f"{target}: no answer within {deadline_s:.0f} s", Code.DEADLINE) from None


def _interleave(addresses: list[Address]) -> list[Address]:
    """Alternate families, beginning with the one that the system prefers (RFC 8305 section 4)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain.from_iterable(zip_longest(first, second)) if address is not None]


async def _race(addresses: list[Address], target: TcpTarget) -> tuple[Conn, str]:
    """The first connection that succeeds; the others are cancelled and closed."""
    attempts: set[asyncio.Task[Conn]] = set()
    waiting = list(addresses)
    failures: list[OSError] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(_start(waiting.pop(0), target.port))
            delay = ATTEMPT_DELAY_S if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            winner = _winner(done, failures)
            if winner is not None:
                return winner, winner.peer
    finally:
        for attempt in attempts:
            attempt.cancel()
        for result in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(result, Conn):
                result.reset()
    raise _refusal(target, failures)


def _start(address: Address, port: int) -> asyncio.Task[Conn]:
    async def connect() -> Conn:
        _, conn = await asyncio.get_running_loop().create_connection(Conn, str(address), port)
        return conn

    return asyncio.get_running_loop().create_task(connect(), name=f"dial {address}:{port}")


def _winner(done: set[asyncio.Task[Conn]], failures: list[OSError]) -> Conn | None:
    winner: Conn | None = None
    for attempt in done:
        error = attempt.exception()
        if error is None:
            if winner is not None:
                winner.reset()  # two came at once
            winner = attempt.result()
        elif isinstance(error, OSError):
            failures.append(error)
        else:
            raise error
    return winner


def _refusal(target: TcpTarget, failures: list[OSError]) -> OpenRefused:
    """The failure that says most: a refusal by the host before a lack of route to it."""
    best = max(failures, key=lambda error: error.errno == errno.ECONNREFUSED)
    text = os.strerror(best.errno).lower() if best.errno else str(best)
    return OpenRefused(f"{target}: {text}", _CODES.get(best.errno or 0, Code.UNREACHABLE))
