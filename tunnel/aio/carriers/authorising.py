"""Who may make which call: read from the certificate, before anything of the call's messages is."""

from __future__ import annotations

from collections import Counter
from typing import NoReturn

import grpc
import grpc.aio
import structlog

from tunnel.aio.carriers.gate import Gate
from tunnel.aio.carriers.methods import CONNECT, JOIN, RECOVER, RENEW
from tunnel.aio.identity.peer_identity import PeerIdentity, identify, readable_peer
from tunnel.aio.identity.spiffe import IdentityUnclear
from tunnel.core.wire.faults import PEER_ROLE_REFUSED, Fault, coded

__all__ = ["Authorising", "Context", "refuse"]

Context = grpc.aio.ServicerContext[bytes, bytes]
_ROLE_OF_METHOD = {CONNECT: "agent", JOIN: "join", RENEW: "agent", RECOVER: "recover"}
_log = structlog.get_logger("tunnel.carrier")


class Authorising:
    """Checks the role of whoever calls, and counts whoever is turned away."""

    def __init__(self, trust_domain: str, gate: Gate) -> None:
        self._trust_domain = trust_domain
        self._gate = gate
        self.refused: Counter[str] = Counter()
        """How many calls were refused so far, by the code of the cause: for their role here, and for a limit by those
        that have it.
        """

    async def identity(self, method: str, context: Context) -> PeerIdentity:
        """Returns who calls; ends the call when that may not be, so that nothing of what it sends is kept."""
        wanted = _ROLE_OF_METHOD[method]
        try:
            identity = identify(context.auth_context(), self._trust_domain)
        except IdentityUnclear as fault:
            await self._deny(context, method, str(fault))
        if identity.role != wanted:
            await self._deny(context, method, f"{identity.uri} may not do this: that takes role {wanted!r}")
        return identity

    def count(self, fault: Fault, peer: str) -> None:
        """Counts a call of `peer`, `ip:port`, that is refused; its connection does not stay."""
        self.refused[fault.code] += 1
        self._gate.refused(peer)

    async def _deny(self, context: Context, method: str, reason: str) -> NoReturn:
        self.count(PEER_ROLE_REFUSED, readable_peer(context.peer()))
        _log.warning(
            "peer refused",
            code=PEER_ROLE_REFUSED.code,
            peer=readable_peer(context.peer()),
            method=method,
            reason=reason,
        )
        await refuse(context, grpc.StatusCode.PERMISSION_DENIED, reason, PEER_ROLE_REFUSED)


async def refuse(context: Context, status: grpc.StatusCode, text: str, fault: Fault) -> NoReturn:
    """Ends a call with a status whose text has the code of the cause."""
    await context.abort(status, coded(text, fault))
