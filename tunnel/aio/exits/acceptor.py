"""Answers the streams that the peer opens: TCP targets within the policy, and the services that this end offers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.exits.served import Served, not_allowed_any_more
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
        """Wraps an incoming stream; `opened` is told of the accepted stream before the first byte of it moves."""
        self._opened = opened
        self.principal = principal
        self.trace_id = incoming.trace_id
        self.deadline_s = incoming.deadline_s
        """Seconds left to answer when the request came in."""
        self.stream: Stream | None = None
        """The stream that `accept` made; None before that."""
        self._incoming = incoming

    def accept(self, resolved_address: str = "") -> Stream:
        """Answers that the target is connected, and returns the stream, over which bytes may flow.

        Raises:
            StreamError: the other side gave up meanwhile, or the session ended.
        """
        self.stream = self._incoming.accept(resolved_address)
        self._opened(self.stream)
        return self.stream

    async def join(self, conn: Conn, address: str) -> None:
        """Accepts the stream for a connection that was made for it, and carries bytes until both are done.

        The connection is closed whatever happens.

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
    """What is being served, and what allowed it."""

    asked: Target
    principal: Principal
    """The principal whom it is served for."""
    target: TcpTarget | None = None
    """The target that was dialled for it; None for a service, and before the dial is over."""
    address: Address | None = None
    rule: TargetRule | None = None
    name: str = ""
    """The service that serves it, or through which it was asked for; empty for what the tunnel asks to dial."""
    service: Service | None = None
    """What has that name; None where `name` is empty."""


class StreamAcceptor:
    """Serves this end's side of every stream that the peer opens. The caller keeps the record."""

    def __init__(
        self,
        policy: Policy,
        services: Mapping[str, Service],
        named: Mapping[str, TcpTarget] | None = None,
        *,
        principal: Principal | None = None,
        offered_by: str = "this box offers no {}: see [host], [kubelet] and [[allow]] service in its edge-agent.toml",
    ) -> None:
        """Serves streams by these rules; the policy is above all others.

        Args:
            policy: what may be dialled.
            services: the services of this end, by name.
            named: targets that may be asked for by a name.
            principal: who the peer is, where its own word on that does not count; None where it does.
            offered_by: the text of the refusal of a name that is neither; {} in it stands for the name.
        """
        self._policy = policy
        self._services = services
        self._named = named or {}
        self._principal = principal
        self._offered_by = offered_by
        self._served = Served()

    def replace(
        self, policy: Policy, services: Mapping[str, Service], named: Mapping[str, TcpTarget] | None = None
    ) -> int:
        """Holds to another policy, and to other services, from now on.

        A stream that these do not allow ends at once, for both sides, with NOT_ALLOWED; all others go on.

        Returns:
            How many streams were ended.
        """
        self._policy, self._services, self._named = policy, services, named or {}
        return self._served.review()

    def rule_of(self, asked: Target, resolved_address: str, principal: Principal) -> str:
        """Returns the rule that allows what was dialled for somebody, as it was written; empty for a service."""
        target = self._target_of(asked)
        address = _address_of(resolved_address)
        if target is None or address is None:
            return ""
        rule = self._policy.rule_for(target, address, principal)
        return rule.text if rule is not None else ""

    async def serve(self, incoming: IncomingStream, opened: Callable[[Stream], None]) -> None:
        """Serves one stream to its end, without a record of its own: the caller keeps it.

        Raises:
            StreamError: it may not be connected, or cannot, or nobody waits for it any more. The caller must reset
                the stream, if `opened` was told of one.
        """
        if incoming.agent:
            raise OpenRefused(f"this end does not forward to {incoming.agent}", Code.UNREACHABLE, NOT_FORWARDED)
        request = Request(incoming, self._principal or incoming.principal, opened)
        live = _Live(incoming.target, request.principal)

        def tell(refusal: OpenRefused) -> None:
            if request.stream is not None:
                request.stream.reset(refusal.code, refusal.told)

        with self._served.hold(lambda: self._objection(live), tell):
            await self._serve(live, request)

    @asynccontextmanager
    async def dialled(
        self, target: TcpTarget, deadline_s: float, principal: Principal, through: str
    ) -> AsyncIterator[Conn]:
        """Gives a connection to a block, which carries it for a client that a service of this end has.

        It is held to the rules as a stream of the tunnel is: where the box does not allow it any more, nor the service
        itself, the block is cancelled. The connection is the block's to close.

        Args:
            target: what to dial.
            deadline_s: within which it must be connected.
            principal: who the client is.
            through: name of the service.

        Raises:
            OpenRefused: it may not be connected, or cannot, or is not allowed any more.
        """
        live = _Live(target, principal, name=through, service=self._services.get(through))
        with self._served.hold(lambda: self._objection(live)):
            conn, _ = await self._dial(live, target, deadline_s)
            yield conn

    # Internal

    async def _serve(self, live: _Live, request: Request) -> None:
        match live.asked:
            case UnknownTarget():
                raise OpenRefused(
                    "this end is too old for what it was asked to connect to", Code.NO_SERVICE, FAR_END_TOO_OLD
                )
            case ServiceTarget(name) if name not in self._named:
                service = self._services.get(name)
                if service is None:
                    raise OpenRefused(self._offered_by.format(name), Code.NO_SERVICE)
                live.name, live.service = name, service
                await service(request)
            case _:
                target = self._target_of(live.asked)
                assert target is not None
                conn, address = await self._dial(live, target, request.deadline_s)
                await request.join(conn, address)

    async def _dial(self, live: _Live, target: TcpTarget, deadline_s: float) -> tuple[Conn, str]:
        policy = self._policy
        conn, address = await dial(target, policy, deadline_s, live.principal)
        live.target, live.address = target, _address_of(address)
        if live.address is not None:
            live.rule = policy.rule_for(target, live.address, live.principal)
        if policy is not self._policy and (objection := self._objection(live)) is not None:  # replaced meanwhile
            conn.reset()
            raise objection
        return conn, address

    def _target_of(self, asked: Target) -> TcpTarget | None:
        """Returns what is dialled for a stream; None when a service serves it."""
        if isinstance(asked, ServiceTarget):
            return self._named.get(asked.name)
        return asked if isinstance(asked, TcpTarget) else None

    def _objection(self, live: _Live) -> OpenRefused | None:
        """Returns why something may not go on; None when it may. What is still dialled is looked at behind its dial."""
        if live.service is not None and self._services.get(live.name) != live.service:
            return not_allowed_any_more(live.asked)
        if live.target is None or live.address is None:
            return None
        same = self._target_of(live.asked) == live.target
        if same and self._policy.still_allows(live.target, live.address, live.rule, live.principal):
            return None
        return not_allowed_any_more(live.asked)


def _address_of(resolved: str) -> Address | None:
    """Returns the address of what was dialled; None for what is none, such as a service."""
    try:
        return normal_address(ip_address(split_address(resolved)[0]))
    except ValueError:
        return None
