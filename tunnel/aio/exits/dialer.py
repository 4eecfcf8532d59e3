"""Connects to a target that the policy permits.

All addresses are tried, both families in a race, within the opener's deadline.

The race is Happy Eyeballs (RFC 8305): families alternate, and the next address is tried 250 ms after the one before,
or at once when that failed.
"""

from __future__ import annotations

import asyncio
import errno
import os
from itertools import chain, zip_longest

from tunnel.aio.exits.policy import Policy
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import FAR_END_EXHAUSTED, TARGET_SILENT
from tunnel.core.wire.principal import NOBODY, Principal
from tunnel.core.wire.spoken import spoken_s
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import Address

ATTEMPT_DELAY_S = 0.25
"""Seconds between two attempts (RFC 8305 section 5, "Connection Attempt Delay")."""
ANSWER_MARGIN_S = 0.2
"""How many seconds before the opener's own deadline we give up, so that the refusal still reaches it."""

MAX_TOLD = 3
"""How many addresses a refusal tells the failure of; a name may have dozens."""

_CODES = {
    errno.ECONNREFUSED: Code.REFUSED,
    errno.ETIMEDOUT: Code.DEADLINE,
    errno.EMFILE: Code.LIMIT_EXCEEDED,
    errno.ENFILE: Code.LIMIT_EXCEEDED,
    errno.ENOBUFS: Code.LIMIT_EXCEEDED,
    errno.ENOMEM: Code.LIMIT_EXCEEDED,
    errno.EADDRNOTAVAIL: Code.LIMIT_EXCEEDED,
}
"""The code for each error of the system; all others mean that there is no way to the host."""


_FAULTS = {Code.DEADLINE: TARGET_SILENT, Code.LIMIT_EXCEEDED: FAR_END_EXHAUSTED}
"""The faults that the codes do not imply by themselves."""


async def dial(target: TcpTarget, policy: Policy, deadline_s: float, principal: Principal = NOBODY) -> tuple[Conn, str]:
    """Connects for somebody whom the policy lets; returns the connection and the address that answered.

    Cancelled, it leaves no socket behind.

    Raises:
        OpenRefused: NOT_ALLOWED, NAME_NOT_FOUND, REFUSED, UNREACHABLE, LIMIT_EXCEEDED or DEADLINE.
    """
    try:
        async with asyncio.timeout(max(0.05, deadline_s - ANSWER_MARGIN_S)):
            addresses = await policy.permitted(target, principal)
            if len(addresses) == 1:
                return await _one(addresses[0], target.port)
            return await _race(_interleave(addresses), target.port)
    except TimeoutError:
        raise OpenRefused(f"{target}: no answer within {spoken_s(deadline_s)}", Code.DEADLINE, TARGET_SILENT) from None


def _interleave(addresses: list[Address]) -> list[Address]:
    """Returns the addresses with their families alternating, the one that the system prefers first (RFC 8305 section
    4).
    """
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain.from_iterable(zip_longest(first, second)) if address is not None]


async def _one(address: Address, port: int) -> tuple[Conn, str]:
    """Dials one address alone. It needs no race, nor its tasks: with them a dial took a third longer."""
    try:
        conn = await _connect(TcpTarget(str(address), port))
    except _Failed as failed:
        raise _refusal([failed]) from failed
    return conn, conn.peer


async def _race(addresses: list[Address], port: int) -> tuple[Conn, str]:
    """Returns the first connection that succeeds; the others are cancelled and closed."""
    attempts: set[asyncio.Task[Conn]] = set()
    waiting = list(addresses)
    failures: list[_Failed] = []
    winner: Conn | None = None
    try:
        while winner is None and (waiting or attempts):
            if waiting:
                attempts.add(_start(TcpTarget(str(waiting.pop(0)), port)))
            delay = ATTEMPT_DELAY_S if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            winner = _winner(done, failures)
        await _call_off(attempts)
    except BaseException:
        if winner is not None:
            winner.reset()  # cancelled while the others were called off
        await _call_off(attempts)
        raise
    if winner is None:
        raise _refusal(failures)
    return winner, winner.peer


async def _call_off(attempts: set[asyncio.Task[Conn]]) -> None:
    """Cancels attempts, and closes those that have connected all the same."""
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, Conn):
            result.reset()


class _Failed(Exception):
    """One address did not take the connection."""

    def __init__(self, where: TcpTarget, number: int) -> None:
        super().__init__(f"{where}: {os.strerror(number).lower()}")
        self.number = number


def _start(where: TcpTarget) -> asyncio.Task[Conn]:
    return asyncio.get_running_loop().create_task(_connect(where), name=f"dial {where}")


def _paused() -> Conn:
    return Conn(paused=True)


async def _connect(where: TcpTarget) -> Conn:
    try:
        # What a target sends at once waits in its socket until the stream has room for it.
        conn = await connect_tcp(_paused, where.host, where.port)
    except OSError as error:
        raise _Failed(where, error.errno or errno.EHOSTUNREACH) from error
    if _is_its_own_peer(conn):
        conn.reset()
        raise _Failed(where, errno.ECONNREFUSED)
    return conn


def _is_its_own_peer(conn: Conn) -> bool:
    """Returns whether a connection is connected to itself: TCP does that when a port of this box that nobody listens on
    happens to become our own end's.
    """
    ours, theirs = (conn.transport.get_extra_info(name) for name in ("sockname", "peername"))
    return theirs is not None and bool(ours == theirs)  # None: reset meanwhile, as the connection will say


def _winner(done: set[asyncio.Task[Conn]], failures: list[_Failed]) -> Conn | None:
    winner: Conn | None = None
    for attempt in done:
        error = attempt.exception()
        if error is None:
            if winner is not None:
                winner.reset()  # two came at once
            winner = attempt.result()
        elif isinstance(error, _Failed):
            failures.append(error)
        else:
            raise error
    return winner


def _refusal(failures: list[_Failed]) -> OpenRefused:
    """Returns the refusal that tells of all failures.

    Its code is of the one that says most: a refusal by the host comes before a lack of route.
    """
    best = max(failures, key=lambda failed: failed.number == errno.ECONNREFUSED)
    told = [best, *(failed for failed in failures if failed is not best)][:MAX_TOLD]
    code = _CODES.get(best.number, Code.UNREACHABLE)
    return OpenRefused("; ".join(map(str, told)), code, _FAULTS.get(code))
