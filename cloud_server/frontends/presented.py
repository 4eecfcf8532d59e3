"""Finds users whose certificate is near its end: nobody else sees it in time: it lies in a kubeconfig far away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from tunnel.aio.identity.validity import ExpiryLog, Standing, Validity, Watched
from tunnel.aio.sockets.conn import Conn, certificate_time

MAX_REMEMBERED = 1024
"""How many users' certificates are remembered; beyond that, all are forgotten, and those near their end are told anew.
"""


class PresentedCertificates:
    """The certificates that users showed. It looks at the certificate of each connection, and logs each user whose
    certificate is near its end once a day.
    """

    def __init__(self) -> None:
        self._log = ExpiryLog()
        self._remembered: dict[str, Watched] = {}

    def seen_by(self, handler: Callable[[Conn], Awaitable[None]]) -> Callable[[Conn], Awaitable[None]]:
        """Returns the same handler, with a look at the certificate before it."""

        async def handle(conn: Conn) -> None:
            self._look(conn.tls_peer_spiffe, conn.transport.get_extra_info("peercert"))
            await handler(conn)

        return handle

    def near_end(self) -> list[Watched]:
        """Returns the certificates that were seen last of each user and are near their end, or past it."""
        now = datetime.now(UTC)
        return [one for one in self._remembered.values() if one.standing(now) is not Standing.GOOD]

    # Internal

    def _look(self, spiffe: str | None, certificate: dict[str, Any] | None) -> None:
        if spiffe is None or not certificate:
            return
        if spiffe not in self._remembered and len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
            self._log = ExpiryLog()
        validity = Validity(certificate_time(certificate["notBefore"]), certificate_time(certificate["notAfter"]))
        remedy = f"give them another kubeconfig: cloud-server kubeconfig --user {spiffe.rpartition('/')[2]}"
        what = f"the certificate of {spiffe}, in use just now,"
        self._remembered[spiffe] = watched = Watched(name=spiffe, what=what, validity=validity, remedy=remedy)
        self._log.look([watched], datetime.now(UTC))
