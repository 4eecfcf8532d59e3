"""Join, Renew and Recover at the server: how many there may be at once, and for how long.

They are one message each, but are served as streams: gRPC receives the message of a unary call before any code of ours
runs, from whoever has a certificate. So the role is checked first, then the limits, and only then is the message read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc
import structlog

from tunnel.aio.carriers.authorising import Authorising, Context, refuse
from tunnel.aio.carriers.enrollment import (
    MAX_REQUEST_BYTES,
    EnrollmentHandler,
    answer_join,
    answer_recover,
    answer_renew,
    retry_after,
)
from tunnel.aio.carriers.gate import Gate
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.methods import JOIN, RECOVER, RENEW, time_header
from tunnel.aio.carriers.peer_key import PeerKey
from tunnel.aio.identity.peer_identity import PeerIdentity, readable_peer
from tunnel.aio.process.limit_use import LimitUse, most, one_less
from tunnel.core.wire.faults import PEER_SAID_NOTHING, TOO_MANY_CLIENTS, coded
from tunnel.core.wire.spoken import spoken_s

__all__ = ["Requests"]

ASK_AGAIN_S = 2.0
"""When a box that came above a limit is told to ask again; a request takes some ms."""
_Answer = Callable[[EnrollmentHandler | None, PeerIdentity, bytes, Context], Awaitable[bytes]]
_log = structlog.get_logger("tunnel.enrollment")


class Requests:
    """Answers the calls by which boxes get their certificates."""

    def __init__(
        self, enrollment: EnrollmentHandler | None, authorising: Authorising, gate: Gate, limits: CarrierLimits
    ) -> None:
        self.limits = limits
        self._enrollment = enrollment
        self._authorising = authorising
        self._gate = gate
        self._by_client: Counter[bytes] = Counter()
        self._by_identity: Counter[str] = Counter()
        """How many run by the name in the certificate; of join tokens they are in `_by_token`."""
        self._by_token: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Returns how many requests are being received or answered."""
        return self._by_identity.total() + self._by_token.total()

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much of each limit of requests is used."""
        limits = self.limits
        yield LimitUse("tunnel_requests", limits.requests, self.running)
        yield LimitUse("tunnel_requests_per_address", limits.requests_per_address, most(self._by_client.values()))
        yield LimitUse("tunnel_requests_per_identity", limits.requests_per_identity, most(self._by_identity.values()))
        yield LimitUse("tunnel_requests_per_token", limits.requests_per_token, most(self._by_token.values()))

    async def join(self, _messages: object, context: Context) -> bytes:
        """Answers one Join call."""
        return await self._serve(JOIN, answer_join, context)

    async def renew(self, _messages: object, context: Context) -> bytes:
        """Answers one Renew call."""
        return await self._serve(RENEW, answer_renew, context)

    async def recover(self, _messages: object, context: Context) -> bytes:
        """Answers one Recover call."""
        return await self._serve(RECOVER, answer_recover, context)

    # Internal

    async def _serve(self, method: str, answer: _Answer, context: Context) -> bytes:
        identity = await self._authorising.identity(method, context)
        peer = readable_peer(context.peer())
        client = PeerKey.of_text(peer)
        if above := self._above_limits(client, identity):
            self._authorising.count(TOO_MANY_CLIENTS, peer)
            _log.warning(
                "request refused: too many at once",
                code=TOO_MANY_CLIENTS.code,
                peer=peer,
                address=client.client_text,
                reason=above,
            )
            status, text = grpc.StatusCode.RESOURCE_EXHAUSTED, f"{above}: ask again"
            await context.abort(status, coded(text, TOO_MANY_CLIENTS), retry_after(ASK_AGAIN_S))
        within_s = self.limits.request_timeout_s
        with self._counted(client, identity, peer):
            try:
                async with asyncio.timeout(within_s):
                    message = await _message(context)
                    await context.send_initial_metadata((time_header(),))
                    answered = await answer(self._enrollment, identity, message, context)
            except TimeoutError:
                self._authorising.count(PEER_SAID_NOTHING, peer)
                who = {"peer": peer, "identity": identity.uri}
                _log.warning("request ended: too late", code=PEER_SAID_NOTHING.code, after_s=within_s, **who)
                text = f"the request was not complete and answered within {spoken_s(within_s)}"
                await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, text, PEER_SAID_NOTHING)
        return answered

    def _above_limits(self, client: PeerKey, identity: PeerIdentity) -> str:
        """Returns which limit a further request is above; empty for none."""
        limits = self.limits
        if self._above_own(identity):
            return f"too many requests at once by {identity.uri}"
        if self._by_client[client.client] >= limits.requests_per_address:
            return f"too many requests at once from {client.client_text}"
        return "too many requests at once" if self.running >= limits.requests else ""

    def _above_own(self, identity: PeerIdentity) -> bool:
        """Returns whether a certificate's name has as many requests as it may. A box has a name of its own; that of a
        join token is shared by all that join with it.
        """
        running, limits = self._running_by(identity)[identity.uri], self.limits
        if running < limits.requests_per_identity:
            return False
        if identity.role != "join" or self._enrollment is None:
            return True
        return running >= min(limits.requests_per_token, self._enrollment.boxes_left(identity.uri))

    def _running_by(self, identity: PeerIdentity) -> Counter[str]:
        return self._by_token if identity.role == "join" else self._by_identity

    @contextmanager
    def _counted(self, client: PeerKey, identity: PeerIdentity, peer: str) -> Iterator[None]:
        self._by_client[client.client] += 1
        self._running_by(identity)[identity.uri] += 1
        self._gate.began(peer)
        try:
            yield
        finally:
            self._gate.ended(peer)
            one_less(self._by_client, client.client)
            one_less(self._running_by(identity), identity.uri)


async def _message(context: Context) -> bytes:
    """Returns the one message of a call."""
    message: bytes | object = await context.read()
    if not isinstance(message, bytes) or len(message) > MAX_REQUEST_BYTES:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")
    return message
