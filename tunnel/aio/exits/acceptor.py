"""Answers the streams that the peer opens: TCP targets within the policy, and the services that this end offers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.sessions.carry import carry
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.faults import FAR_END_TOO_OLD, NOT_FORWARDED
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import ServiceTarget, TcpTarget, UnknownTarget

_log = structlog.get_logger("audit")


class Request:
    """A stream that the peer asks for, as the one who serves it sees it."""

    def __init__(
        self, incoming: IncomingStream, principal: Principal, opened: Callable[[Stream], None] = lambda _stream: None
    ) -> None:
        """`opened` is told of the stream before the first byte of it moves."""
        self._opened = opened
        self.principal = principal
        self.trace_id = incoming.trace_id
        self.deadline_s = incoming.deadline_s
        """Time left to answer when the request came in."""
        self.stream: Stream | None = None
        """What `accept` made."""
        self._incoming = incoming

    def accept(self, resolved_address: str = "") -> Stream:
        """Connected: bytes may flow.

        Raises:
            StreamError: the other side gave up meanwhile, or the session ended.
        """
        self.stream = self._incoming.accept(resolved_address)
        self._opened(self.stream)
        return self.stream

    async def join(self, conn: Conn, address: str) -> None:
        """Accepts for a connection that was made for this, and carry it to its end. It is closed whatever happens.

        Raises:
            StreamError: the other side gave up meanwhile, or the session ended.
        """
        try:
            stream = self.accept(address)
        except BaseException:
            conn.reset()
            raise
        await carry(stream, conn)


Service = Callable[[Request], Awaitable[None]]
"""Accepts a stream and serves it to its end; raises OpenRefused when it cannot."""


class StreamAcceptor:
    """This end's side of every stream; a record of each, however it ended, goes to its own log."""

    def __init__(
        self,
        policy: Policy,
        services: Mapping[str, Service],
        named: Mapping[str, TcpTarget] | None = None,
        *,
        principal: Principal | None = None,
        offered_by: str = "this box offers no {}: see [host], [kubelet] and [[allow]] service in its edge-agent.toml",
    ) -> None:
        """The policy is above all.

        Args:
            policy: what may be dialled.
            services: what is served here, by name.
            named: targets that may be asked for by a name.
            principal: who the peer is, where its own word on that does not count; None where it does.
            offered_by: the refusal of a name that is neither, with {} for it.
        """
        self._policy = policy
        self._services = services
        self._named = named or {}
        self._principal = principal
        self._offered_by = offered_by

    async def serve(self, incoming: IncomingStream, opened: Callable[[Stream], None]) -> None:
        """Serves one stream without a record of its own: who calls this keeps it.

        Raises:
            StreamError: it may not be connected, or cannot, or nobody waits for it any more. The caller must reset
                the stream, if `opened` was told of one.
        """
        await self._serve(Request(incoming, self._principal or incoming.principal, opened), incoming)

    async def accept(self, incoming: IncomingStream) -> None:
        """Serves one stream, from its request to its end.

        Raises:
            StreamError: it may not be connected, or cannot, or nobody waits for it any more.
        """
        started_s = incoming.now()
        request = Request(incoming, self._principal or incoming.principal)
        try:
            await self._serve(request, incoming)
        except BaseException as error:
            reason = _reason(error)
            if request.stream is None:
                _record_refused(request, incoming, reason)
            else:
                request.stream.reset(reason.code, reason.told)
            raise
        finally:
            if request.stream is not None:
                _record_stream(request, incoming, request.stream, incoming.now() - started_s)

    # Internal

    async def _serve(self, request: Request, incoming: IncomingStream) -> None:
        if incoming.agent:
            raise OpenRefused(f"this end does not forward to {incoming.agent}", Code.UNREACHABLE, NOT_FORWARDED)
        match incoming.target:
            case UnknownTarget():
                raise OpenRefused(
                    "this end is too old for what it was asked to connect to", Code.NO_SERVICE, FAR_END_TOO_OLD
                )
            case TcpTarget():
                await self._connect(request, incoming.target)
            case ServiceTarget(name) if name in self._named:
                await self._connect(request, self._named[name])
            case ServiceTarget(name):
                service = self._services.get(name)
                if service is None:
                    raise OpenRefused(self._offered_by.format(name), Code.NO_SERVICE)
                await service(request)

    async def _connect(self, request: Request, target: TcpTarget) -> None:
        conn, address = await dial(target, self._policy, request.deadline_s)
        await request.join(conn, address)


def _reason(error: BaseException) -> StreamError:
    """Why a stream was not served to its end, in words for both sides."""
    if isinstance(error, StreamError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return OpenRefused("the other side gave up, or this end is stopping", Code.CANCELLED)
    return OpenRefused("a fault at the far end, whose log says more", Code.INTERNAL)


def _record_refused(request: Request, incoming: IncomingStream, refusal: StreamError) -> None:
    _log.info(
        "refused",
        user=str(request.principal),
        trace_id=request.trace_id,
        target=str(incoming.target),
        code=refusal.fault.code,
        outcome=refusal.code.label,
        reason=str(refusal),
    )


def _record_stream(request: Request, incoming: IncomingStream, stream: Stream, duration_s: float) -> None:
    counts, error = stream.statistics(), stream.error
    _log.info(
        "stream",
        user=str(request.principal),
        trace_id=request.trace_id,
        target=str(incoming.target),
        resolved=stream.resolved_address,
        bytes_in=counts.bytes_received,
        bytes_out=counts.bytes_sent,
        duration_s=round(duration_s, 3),
        ended="closed" if error is None else f"{error.code.label}: {error}",
    )
