"""Answers the streams that the cloud opens: TCP targets within the policy, and the services that this box offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog

from edge_agent.dialer import dial
from edge_agent.policy import Policy
from tunnel.aio.session import IncomingStream
from tunnel.aio.splice import splice
from tunnel.aio.stream import Stream
from tunnel.core.errors import Code, OpenRefused
from tunnel.core.target import ServiceTarget, TcpTarget

_log = structlog.get_logger("audit")

Service = Callable[[IncomingStream], Awaitable[None]]
"""Accepts a stream and serves it to its end; raises OpenRefused when it cannot."""


class StreamAcceptor:
    """The agent's side of every stream; a record of each goes to the box's own log."""

    def __init__(
        self, policy: Policy, services: Mapping[str, Service], named: Mapping[str, TcpTarget] | None = None
    ) -> None:
        """`services` are served here; `named` are targets that may be asked for by a name. The policy is above both."""
        self._policy = policy
        self._services = services
        self._named = named or {}

    async def accept(self, incoming: IncomingStream) -> None:
        """Serve one stream, from its request to its end.

        Raises:
            OpenRefused: it may not, or cannot, be connected.
        """
        try:
            match incoming.target:
                case TcpTarget():
                    await self._connect(incoming, incoming.target)
                case ServiceTarget(name) if name in self._named:
                    await self._connect(incoming, self._named[name])
                case ServiceTarget():
                    await self._serve(incoming, incoming.target)
        except OpenRefused as refused:
            _log.info(
                "refused",
                user=incoming.principal,
                target=str(incoming.target),
                code=refused.code.label,
                reason=str(refused),
            )
            raise

    async def _connect(self, incoming: IncomingStream, target: TcpTarget) -> None:
        conn, address = await dial(target, self._policy, incoming.deadline_s)
        stream: Stream | None = None
        try:
            stream = incoming.accept(address)
            detached = conn.detach()
        except BaseException:
            conn.reset()
            if stream is not None:
                stream.reset(Code.CONNECTION_RESET, f"{target}: closed at once")
            raise
        result = await splice(stream, detached)
        _log.info(
            "stream",
            user=incoming.principal,
            target=str(target),
            resolved=address,
            bytes_in=result.bytes_to_socket,
            bytes_out=result.bytes_from_socket,
            duration_s=round(result.duration_s, 3),
            ended=f"{result.reason}: {result.text}" if result.text else result.reason,
        )

    async def _serve(self, incoming: IncomingStream, target: ServiceTarget) -> None:
        service = self._services.get(target.name)
        if service is None:
            raise OpenRefused(f"this box offers no {target.name}: its edge-agent.toml does not", Code.NO_SERVICE)
        await service(incoming)
