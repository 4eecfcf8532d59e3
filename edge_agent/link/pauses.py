"""Says when to dial again: soon after what passes by itself, seldom after what somebody has to mend."""

from __future__ import annotations

import asyncio
import random

from tunnel.core.path.backoff import Backoff
from tunnel.core.wire import faults
from tunnel.core.wire.errors import SessionRefused
from tunnel.core.wire.faults import Fault, fault_of

MAX_ADVISED_S = 300.0
"""The longest wait, in seconds, that a server may ask for; what it could say is 49 days, and nobody can call the box
back."""
FIRST_FOR_GOOD_S = 15.0
MAX_FOR_GOOD_S = 300.0
"""The most seconds between two dials of a box that the server has turned away: each is a full handshake there, and
whoever mends it (a new join, another configuration) is noticed at once. Five minutes are for what is mended at the
server."""
FOR_GOOD: frozenset[Fault] = frozenset(
    {
        faults.AGENT_KEY_DIFFERS,
        faults.AGENT_REVOKED,
        faults.AGENT_UNKNOWN,
        faults.BOX_CERTIFICATE_TIME,
        faults.BOX_NOT_ACCEPTED,
        faults.CERTIFICATE_UNREADABLE,
        faults.CREDENTIALS_UNUSABLE,
        faults.IDENTITY_MISSING,
        faults.IDENTITY_UNUSABLE,
        faults.PEER_ROLE_REFUSED,
        faults.PROXY_INVALID,
        faults.VERSION_NOT_SPOKEN,
    }
)  # fmt: skip
"""The causes that no waiting removes. What a captive portal or a proxy looks like (no TLS, an unknown certificate) is
not among them: it goes away by itself."""


def is_for_good(error: BaseException) -> bool:
    """Returns whether another try would end as this one did. A server that says when to come back expects it not to."""
    advised = isinstance(error, SessionRefused) and error.retry_after_s > 0
    return fault_of(error) in FOR_GOOD and not advised


class Pauses:
    """The waits between the dials of one link."""

    def __init__(self) -> None:
        self._backoff = Backoff(random=random.random)
        self._advised_s = 0.0
        self._for_good = 0
        self._woken = asyncio.Event()

    @property
    def attempts(self) -> int:
        """Returns how many dials in a row came to nothing."""
        return self._backoff.attempts

    def next_s(self) -> float:
        """Returns how many seconds to wait now. Advice of a server is for one wait."""
        advised_s, self._advised_s = self._advised_s, 0.0
        if self._for_good:
            ceiling_s = min(MAX_FOR_GOOD_S, FIRST_FOR_GOOD_S * 2.0 ** min(self._for_good - 1, 16))
            advised_s = max(advised_s, ceiling_s / 1.5)
        return self._backoff.next_delay(advised_s)

    def advise(self, advised_s: float) -> None:
        """Takes a server's advice to come back after so many seconds; 0 is no advice."""
        self._advised_s = min(advised_s, MAX_ADVISED_S)

    def failed(self, error: BaseException) -> None:
        """Takes note that a dial came to nothing."""
        if isinstance(error, SessionRefused):
            self.advise(error.retry_after_s)
        self._for_good = self._for_good + 1 if is_for_good(error) else 0

    def connected_for(self, duration_s: float) -> None:
        """Takes note that a link was up for so many seconds."""
        self._for_good = 0
        self._woken.clear()
        self._backoff.connected_for(duration_s)

    def wake(self) -> None:
        """Has the next dial come at once, because something was mended here, and forgets what went wrong before."""
        self._for_good, self._advised_s, self._backoff.attempts = 0, 0.0, 0
        self._woken.set()

    async def wait(self, delay_s: float) -> None:
        """Waits `delay_s` seconds, but no longer than until `wake`."""
        try:
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
        except TimeoutError:
            return
        finally:
            self._woken.clear()
