"""Answers the streams that the peer opens: TCP targets within the policy, and the services that this end offers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.sessions.carry import carry
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.address import split_address
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import FAR_END_TOO_OLD, NOT_FORWARDED
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget, UnknownTarget
from tunnel.core.wire.target_rule import Address, TargetRule, normal_address


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
        """Accepts for a connection that was made for this, and carries it to its end. It is closed whatever happens.

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


@dataclass(slots=True, eq=False)
class _Live:
    """A stream that is being served, and what allowed it."""

    request: Request
    task: asyncio.Task[Any]
    asked: Target
    target: TcpTarget | None = None
    """What was dialled for it; None for a service, and before the dial is over."""
    address: Address | None = None
    rule: TargetRule | None = None
    service: Service | None = None
    """What serves it; None for what is dialled."""
    refusal: OpenRefused | None = None
    """Why it may not go on."""

    def end(self, refusal: OpenRefused) -> None:
        """End it for both sides."""
        self.refusal = refusal
        if self.request.stream is not None:
            self.request.stream.reset(refusal.code, refusal.told)
        self.task.cancel()


class StreamAcceptor:
    """Serves this end's side of every stream. Who calls it keeps the record."""

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
        self._live: set[_Live] = set()

    def replace(
        self, policy: Policy, services: Mapping[str, Service], named: Mapping[str, TcpTarget] | None = None
    ) -> int:
        """Hold to another list, and to other services, from now on.

        A stream that these do not allow ends at once, for both sides, with NOT_ALLOWED; all others go on.

        Returns:
            How many were ended.
        """
        self._policy, self._services, self._named = policy, services, named or {}
        gone = [live for live in self._live if live.refusal is None and not self._allows(live)]
        for live in gone:
            live.end(OpenRefused(f"{live.asked} is not allowed any more at this end", Code.NOT_ALLOWED))
        return len(gone)

    def rule_of(self, asked: Target, resolved_address: str) -> str:
        """Returns the rule that allows what was dialled, as it was written; empty for a service."""
        target = self._target_of(asked)
        address = _address_of(resolved_address)
        rule = self._policy.rule_for(target, address) if target is not None and address is not None else None
        return rule.text if rule is not None else ""

    async def serve(self, incoming: IncomingStream, opened: Callable[[Stream], None]) -> None:
        """Serves one stream without a record of its own: who calls this keeps it.

        Raises:
            StreamError: it may not be connected, or cannot, or nobody waits for it any more. The caller must reset
                the stream, if `opened` was told of one.
        """
        await self._serve(Request(incoming, self._principal or incoming.principal, opened), incoming)

    # Internal

    async def _serve(self, request: Request, incoming: IncomingStream) -> None:
        if incoming.agent:
            raise OpenRefused(f"this end does not forward to {incoming.agent}", Code.UNREACHABLE, NOT_FORWARDED)
        task = asyncio.current_task()
        assert task is not None
        live = _Live(request, task, incoming.target)
        self._live.add(live)
        try:
            await self._serve_live(live)
        except asyncio.CancelledError:
            if live.refusal is None:
                raise
            task.uncancel()
            raise live.refusal from None
        finally:
            self._live.discard(live)

    async def _serve_live(self, live: _Live) -> None:
        match live.asked:
            case UnknownTarget():
                raise OpenRefused(
                    "this end is too old for what it was asked to connect to", Code.NO_SERVICE, FAR_END_TOO_OLD
                )
            case ServiceTarget(name) if name not in self._named:
                service = self._services.get(name)
                if service is None:
                    raise OpenRefused(self._offered_by.format(name), Code.NO_SERVICE)
                live.service = service
                await service(live.request)
            case _:
                await self._connect(live)

    async def _connect(self, live: _Live) -> None:
        target = self._target_of(live.asked)
        assert target is not None
        policy = self._policy
        conn, address = await dial(target, policy, live.request.deadline_s)
        live.target, live.address = target, _address_of(address)
        if live.address is not None:
            live.rule = policy.rule_for(target, live.address)
        if policy is not self._policy and not self._allows(live):  # replaced while it was dialled
            conn.reset()
            raise OpenRefused(f"{live.asked} is not allowed any more at this end", Code.NOT_ALLOWED)
        await live.request.join(conn, address)

    def _target_of(self, asked: Target) -> TcpTarget | None:
        """What is dialled for a stream; None when it is a service's."""
        if isinstance(asked, ServiceTarget):
            return self._named.get(asked.name)
        return asked if isinstance(asked, TcpTarget) else None

    def _allows(self, live: _Live) -> bool:
        """Whether a stream may go on. One that is still being dialled is looked at behind its dial."""
        if isinstance(live.asked, ServiceTarget) and live.service is not None:
            return self._services.get(live.asked.name) == live.service
        if live.target is None or live.address is None:
            return True
        same = self._target_of(live.asked) == live.target
        return same and self._policy.still_allows(live.target, live.address, live.rule)


def _address_of(resolved: str) -> Address | None:
    """The address of what was dialled; None for what is none, as of a service."""
    try:
        return normal_address(ip_address(split_address(resolved)[0]))
    except ValueError:
        return None
