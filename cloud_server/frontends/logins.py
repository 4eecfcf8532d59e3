"""Counts and records clients that came to a front end and could not say who they are."""

from __future__ import annotations

from collections import Counter

from tunnel.aio.operate.audit import Audit
from tunnel.core.wire.host_port import split_host_port


class RefusedLogins:
    """The refused logins of all front ends. They are counted for each, and recorded folded: strangers can come as often
    as they like.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Returns how many there were so far, by front end."""
        return dict(self._counts)

    def refused(self, frontend: str, peer: str, reason: str) -> None:
        """Counts and records one refused login. `peer` is the client's address and port."""
        self._counts[frontend] += 1
        address = split_host_port(peer)[0] or peer
        self._audit.record_folded("login_refused", (frontend, address), frontend=frontend, peer=address, reason=reason)
