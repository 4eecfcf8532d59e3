"""The servers that the box may dial: whose turn it is, and how each fared last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tunnel.core.wire.faults import Fault

TRIES_PER_SERVER = 2
"""The failures in a row until it is the next server's turn."""


@dataclass(slots=True)
class ServerState:
    """The state of one server, as this box sees it."""

    address: str
    state: str = "untried"
    """The state: `up`, `down`, or `untried` when it had no turn yet."""
    since: datetime | None = None
    """When it came into this state; None for one that is untried."""
    reason: str = ""
    """Why it is down, for people; empty while it is not."""
    fault: Fault | None = None
    """The cause, for who looks it up; None while it is not down."""


class Servers:
    """The list of `[cloud] servers`, taken in turns."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Makes the list; the first server's turn comes first."""
        self._states = [ServerState(address) for address in addresses]
        self._index = 0
        self._failures = 0

    @property
    def current(self) -> str:
        """Returns the address of the server whose turn it is."""
        return self._states[self._index].address

    def states(self) -> list[ServerState]:
        """Returns how each server fares, in the order of the list."""
        return self._states

    def replace(self, addresses: Sequence[str]) -> bool:
        """Takes another list; what is known of a server that stays is kept.

        Returns:
            Whether the current one stays the current one. If not, it is the first one's turn.
        """
        current, known = self.current, {state.address: state for state in self._states}
        self._states = [known.get(address) or ServerState(address) for address in addresses]
        stays = current in addresses
        self._index = addresses.index(current) if stays else 0
        self._failures = 0
        return stays

    def up(self, address: str) -> None:
        """Takes note that a link to a server came up."""
        self._set(address, "up")

    def held(self) -> None:
        """Takes note that the link to the current server was of use, and forgets its failures."""
        self._failures = 0

    def down(self, address: str, reason: str, fault: Fault) -> None:
        """Takes note that a link to a server was lost, or did not come up."""
        self._set(address, "down", reason, fault)

    def failed(self, *, for_good: bool, sticks: bool) -> None:
        """Counts a failure of the current server; after some it is the next one's turn.

        Args:
            for_good: another try would end as this one did.
            sticks: something can only be had from this one, whatever comes.
        """
        self._failures += 1
        if (for_good or self._failures >= TRIES_PER_SERVER) and not sticks:
            self.next()

    def next(self) -> None:
        """Gives the turn to the next server."""
        self._failures = 0
        self._index = (self._index + 1) % len(self._states)

    def _set(self, address: str, name: str, reason: str = "", fault: Fault | None = None) -> None:
        for state in self._states:
            if state.address == address:
                if state.state != name:
                    state.state, state.since = name, datetime.now(UTC)
                state.reason, state.fault = reason, fault
