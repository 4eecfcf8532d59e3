"""Keeps how the link to the cloud fared: counters for the metrics, and the facts that only this end has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from edge_agent.operate.facts import Facts
from tunnel.aio.carriers.carrier_errors import CarrierLost
from tunnel.core.wire import faults
from tunnel.core.wire.errors import TunnelError
from tunnel.core.wire.faults import Fault

QUIET_S = 5.0
"""The seconds for which a link may be away without a fact of it: routers forget connections, and servers restart."""
DNS = "dns"
AWAY = "link"
_IN_ORDER = faults.SHUTTING_DOWN
"""The fault that the loss of a link counts as that the server ended in order."""


class LinkBook:
    """The book of one agent's links, which is told of each dial, each link and each loss.

    See `edge_agent.link.link.Watcher`.
    """

    def __init__(self, facts: Facts, on_first_up: Callable[[], None]) -> None:
        """Begins an empty book; `on_first_up` is called once, when the first link is up."""
        self._facts = facts
        self._on_first_up: Callable[[], None] | None = on_first_up
        self.ups: Counter[bool] = Counter()
        """How many links came up, by whether a session was resumed."""
        self.losses: Counter[str] = Counter()
        """How many links were lost, by the code of the cause."""
        self.failures: Counter[str] = Counter()
        """How many dials and handshakes came to nothing, by the code of the cause."""
        self.away_since: datetime | None = datetime.now(UTC)
        """Since when there is no link; None while one is up."""
        self.last_fault = ""
        """Why the last dial failed or the last link was lost; empty when there was nothing of the kind."""
        self._worst: tuple[Fault, str] | None = None
        self.on_fault: Callable[[Fault], None] = lambda _fault: None
        """A function that is told of each cause for which there is no link."""

    def failed(self, error: CarrierLost | TunnelError) -> None:
        """Takes note that a dial came to nothing."""
        fault = error.fault
        self.failures[fault.code] += 1
        self.last_fault = str(error)
        self._worst = fault, str(error)
        self.on_fault(fault)

    def up(self, *, resumed: bool) -> None:
        """Takes note that a link is up. That there was none for QUIET_S or longer becomes a fact, if dials failed."""
        self.ups[resumed] += 1
        since, self.away_since = self.away_since, None
        if self._worst is not None and since is not None:
            away_s = (datetime.now(UTC) - since).total_seconds()
            fault, text = self._worst
            if away_s >= QUIET_S:
                self._facts.was(AWAY, fault, f"the box had no link for {away_s:.0f} s: {text}", since)
        self._worst = None
        if self._on_first_up is not None:
            self._on_first_up()
            self._on_first_up = None

    def lost(self, error: CarrierLost | None) -> None:
        """Takes note that a link is gone; None: the server ended it in order."""
        fault = _IN_ORDER if error is None else error.fault
        self.losses[fault.code] += 1
        self.on_fault(fault)
        self.last_fault = "the server ended the link" if error is None else str(error)
        self.away_since = datetime.now(UTC)

    def dns(self, fault: str) -> None:
        """Takes note of how looking up the server's name went: what is wrong, or "" when it went well."""
        if fault:
            self._facts.set(DNS, faults.SERVER_NAME_NOT_FOUND, fault)
        else:
            self._facts.clear(DNS)
