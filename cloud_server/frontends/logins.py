"""Turns away clients that came to a front end and could not say who they are: counted, told, and slowed down.

Nobody is ever locked out: whoever shows what is good comes in at once, also beside somebody at the same address who
guesses. What is slow is the answer to what is worth nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress

import structlog

from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.minutes import Minutes
from tunnel.aio.sockets.strangers import client_at
from tunnel.core.path.rate import Rate, TokenBuckets
from tunnel.core.wire.faults import CREDENTIAL_MISSING, FaultError
from tunnel.core.wire.host_port import split_host_port

GUESSES = Rate(1.0, 10)
"""The wrong credentials of one address that are answered at once: ten, as sshd and others have it, and one a second for
long, since a script with an old token may stand behind the same address.
"""
MISSING = Rate(20.0, 100)
"""The same for requests without any credential, which is how browsers and some proxy clients begin."""
MAX_DELAY_S = 5.0
"""The longest that an answer waits for its turn. A stranger's connection ends 10 s after it came."""

_log = structlog.get_logger("cloud.logins")


class RefusedLogins:
    """The refused logins of all front ends. They are counted for each, and recorded folded: strangers can come as often
    as they like.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._counts: Counter[str] = Counter()
        self._guesses = TokenBuckets(*GUESSES)
        self._missing = TokenBuckets(*MISSING)
        self._minutes = Minutes(_tell)
        self.delayed = 0
        """How many answers waited so far."""

    @property
    def counts(self) -> dict[str, int]:
        """Returns how many there were so far, by front end."""
        return dict(self._counts)

    async def turn_away(
        self, frontend: str, peer: str, refused: FaultError, lost: Callable[[], Awaitable[None]]
    ) -> None:
        """Counts and records a refused login, and returns when it may be answered.

        Args:
            frontend: the name of the front end.
            peer: the client's address and port.
            refused: why it is refused.
            lost: returns when no answer reaches the client any more, since its connection is gone.
        """
        wait_s = self._refused(frontend, peer, refused)
        if wait_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await lost()

    # Internal

    def _refused(self, frontend: str, peer: str, refused: FaultError) -> float:
        """Counts and records one, and returns how many seconds its answer is to wait."""
        self._counts[frontend] += 1
        address = split_host_port(peer)[0] or peer
        code, reason = refused.fault.code, refused.text
        key = (frontend, address, code)
        self._audit.record_folded("login_refused", key, frontend=frontend, peer=address, code=code, reason=reason)
        guessed = refused.fault is not CREDENTIAL_MISSING
        buckets = self._guesses if guessed else self._missing
        wait_s = buckets.reserve(client_at(address), asyncio.get_running_loop().time(), MAX_DELAY_S)
        if wait_s is None:
            wait_s = MAX_DELAY_S
        self.delayed += wait_s > 0
        if guessed or wait_s:
            self._minutes.count((address, code))
        return wait_s


def _tell(key: Hashable, count: int) -> None:
    address, code = key if isinstance(key, tuple) else ("many addresses", "")
    _log.warning("logins refused", address=address, code=code, count=count, each=True)
