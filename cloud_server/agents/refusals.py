"""Tells agents that are turned away when to come back, and decides how often the log says so.

What is wrong with an identity stays wrong until somebody does something about it. A box that comes back every second
costs itself and us a TLS handshake each time, and hides what else is in the log.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cloud_server.trust.agents import IdentityRejected
from tunnel.core.wire.errors import Code, SessionRefused, TunnelError
from tunnel.core.wire.host_port import split_host_port

FIRST_RETRY_S = 60.0
MAX_RETRY_S = 300.0
"""The longest time in seconds that an agent obeys. A new join on the box is used at once, however long it was told to
wait.
"""
MENDED_RETRY_S = 5.0
"""Seconds after which an agent comes back when a command on the server puts things right: whoever types it waits for
the box.
"""
LASTING = (Code.IDENTITY_REJECTED, Code.REPLACED, Code.UNSUPPORTED_VERSION)
"""The faults that do not go away by themselves."""
TELL_EVERY_S = 3600.0
"""Seconds after which the log repeats that an agent is turned away for the same reason, with the number of times."""
MAX_REMEMBERED = 4096
"""The number of agents that are remembered; only agents with a certificate of our authority get this far."""

_log = structlog.get_logger("cloud.sessions")


@dataclass(slots=True)
class _Refused:
    reason: str
    count: int = 0
    told_s: float = 0.0
    untold: int = 0


class Refusals:
    """The memory of who was turned away, and why."""

    def __init__(
        self,
        on_replaced: Callable[[str, str], None] = lambda _name, _address: None,
        on_refused: Callable[[str, str, TunnelError], None] = lambda _name, _address, _error: None,
    ) -> None:
        """Starts with nobody turned away.

        Args:
            on_replaced: is told of the name and address of a process whose place another one has.
            on_refused: is told of everybody who is turned away, by name and address, and why.
        """
        self._on_replaced = on_replaced
        self._on_refused = on_refused
        self.counts: Counter[str] = Counter()
        """How many agents were turned away so far, by the code of the cause."""
        self._refused: dict[str, _Refused] = {}

    def answer(self, name: str, address: str, error: TunnelError) -> SessionRefused:
        """Returns the refusal to send to an agent that cannot have a session, with the time after which it is to ask
        again. Counts and logs it.
        """
        self.counts[error.fault.code] += 1
        self._on_refused(name, address, error)
        if error.code is Code.REPLACED:
            self._on_replaced(name, address)
        if error.code not in LASTING:
            # Without the port: lines of one agent are folded.
            host = split_host_port(address)[0] or address
            _log.warning("agent refused", agent=name, address=host, reason=str(error), code=error.fault.code)
            return (
                error
                if isinstance(error, SessionRefused)
                else SessionRefused(str(error), error.code, fault=error.fault)
            )
        refused = self._remembered(name, str(error))
        refused.count += 1
        self._tell(name, address, error, refused)
        retry_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** min(refused.count - 1, 8))
        if isinstance(error, IdentityRejected) and error.mended_here:
            retry_s = MENDED_RETRY_S
        return SessionRefused(str(error), error.code, retry_s, error.fault)

    def accepted(self, name: str) -> None:
        """Forgets why an agent was turned away, since it has a session now."""
        self._refused.pop(name, None)

    # Internal

    def _remembered(self, name: str, reason: str) -> _Refused:
        refused = self._refused.get(name)
        if refused is None or refused.reason != reason:
            while len(self._refused) >= MAX_REMEMBERED:
                del self._refused[next(iter(self._refused))]
            refused = self._refused[name] = _Refused(reason)
        return refused

    def _tell(self, name: str, address: str, error: TunnelError, refused: _Refused) -> None:
        now_s = time.monotonic()
        if refused.count > 1 and now_s - refused.told_s < TELL_EVERY_S:
            refused.untold += 1
            return
        more = {"times": refused.untold + 1} if refused.untold else {}
        _log.warning("agent refused", agent=name, address=address, reason=str(error), code=error.fault.code, **more)
        refused.told_s, refused.untold = now_s, 0
