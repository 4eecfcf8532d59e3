"""The accepting side of the carrier: a gRPC server that answers four methods and hands each carrier to its owner.

It checks the peer's certificate and role, and bounds what a peer may hold before it has said anything. Sessions and
certificates are the business of the two handlers it is given.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import structlog

from tunnel.aio.carriers.authorising import Authorising, Context, refuse
from tunnel.aio.carriers.carrier_errors import GRPC_ERRORS, CarrierLost, lost_from_error
from tunnel.aio.carriers.channel_options import cloud_options
from tunnel.aio.carriers.credentials import server_credentials
from tunnel.aio.carriers.enrollment import EnrollmentHandler
from tunnel.aio.carriers.gate import Gate
from tunnel.aio.carriers.grpc_runtime import keep_grpc_running
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.methods import ACCEPTED, CONNECT, JOIN, RECOVER, RENEW, time_header
from tunnel.aio.carriers.one_task import OneTask, Operation
from tunnel.aio.carriers.places import Places
from tunnel.aio.carriers.requests import Requests
from tunnel.aio.identity.peer_identity import PeerIdentity, readable_peer
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.process.limit_use import LimitUse, most
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.binding import in_use
from tunnel.core.wire.faults import BOX_CERTIFICATE_TIME, PEER_SAID_NOTHING
from tunnel.core.wire.host_port import split_host_port
from tunnel.core.wire.limits import MAX_MESSAGE_BYTES
from tunnel.core.wire.spoken import spoken_s

__all__ = ["CarrierServer", "OnCarrier"]

OnCarrier = Callable[["AcceptedCarrier", str, bytes], Awaitable[None]]
"""Called once for each carrier with the peer's URI name and the SHA-256 of its public key; the carrier is closed when
it returns. It is not cancelled when the peer goes away: reading and writing end with CarrierLost."""

LOOK_AT_CLOCK_S = 1.0
"""How often, in seconds, the wall clock is asked which certificates have ended: it may be set, and a machine may sleep.
One timer asks for all carriers at once, as 5,000 timers cost an idle server more.
"""
_FATE_S = 0.05
_NEVER = datetime.max.replace(tzinfo=UTC)
_ALL = "all"
_log = structlog.get_logger("tunnel.carrier")


class CarrierServer:
    """Listens for agents. Call `start` once and `stop` once."""

    def __init__(
        self,
        listen: Sequence[str],
        tls: ServerTls,
        on_carrier: OnCarrier,
        enrollment: EnrollmentHandler | None,
        *,
        trust_domain: str = "longline",
        limits: CarrierLimits | None = None,
        places: Places | None = None,
    ) -> None:
        self._listen = list(listen)
        self._tls = tls
        self._on_carrier = on_carrier
        self._limits = limits or CarrierLimits()
        self._gate = Gate(self._limits, places)
        self._authorising = Authorising(trust_domain, self._gate)
        self.requests = Requests(enrollment, self._authorising, self._gate, self._limits)
        self._servers: list[grpc.aio.Server] = []
        """One server for each address, since gRPC's takes no more addresses once it runs."""
        self._ports: list[int] = []
        self._stopping = False
        self._carriers: set[AcceptedCarrier] = set()
        self._soonest_end = _NEVER
        """No certificate of these carriers ends before this moment."""
        self._tasks = TaskOwner("carriers")
        self._owners = TaskOwner("carrier")
        self._silent: Counter[str] = Counter()
        """How many carriers had no first message yet: in all, and by address."""
        self._silent_of: dict[str, list[AcceptedCarrier]] = {}
        """Which those are, by name, the oldest first."""

    # Public

    @property
    def refused(self) -> Mapping[str, int]:
        """Returns how many calls were refused or ended so far, by the code of the cause."""
        return self._authorising.refused

    @property
    def cut(self) -> Mapping[str, int]:
        """Returns how many connections without a call were cut so far, by reason."""
        return self._gate.cut

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much of each limit is used."""
        limits, gate = self._limits, self._gate
        yield LimitUse("tunnel_connections", limits.connections, gate.waiting + len(self._carriers))
        yield LimitUse("tunnel_waiting", limits.waiting, gate.waiting)
        yield LimitUse("tunnel_waiting_per_address", limits.waiting_per_address, gate.most_of_one)
        yield from self.requests.use_of_limits()
        yield LimitUse("tunnel_silent", limits.max_silent, self._silent[_ALL])
        of_one = most(count for address, count in self._silent.items() if address != _ALL)
        yield LimitUse("tunnel_silent_per_address", limits.max_silent_per_address, of_one)
        of_name = most(map(len, self._silent_of.values()))
        yield LimitUse("tunnel_silent_per_identity", limits.max_silent_per_identity, of_name)

    def use(self, limits: CarrierLimits) -> None:
        """Goes by other limits from now on, but for that of all connections: that is a listener's for good."""
        self._limits = self.requests.limits = limits
        self._gate.use(limits)

    @property
    def ports(self) -> list[int]:
        """Returns the bound ports, in the order in which they were bound."""
        return list(self._ports)

    async def start(self) -> None:
        """Binds each address and accepts there; for servers that take over from nobody.

        Raises:
            CredentialsUnusable: the certificate, key or CA cannot be used.
            OSError: an address cannot be bound.
        """
        for address in self._listen:
            await self.listen(address)

    async def listen(self, address: str, *, shared: bool = False) -> None:
        """Binds one address and accepts there.

        With `shared`, a process that this one takes over from may listen there, too.

        Raises:
            CredentialsUnusable: the certificate, key or CA cannot be used.
            OSError: the address cannot be bound.
        """
        if not shared and await asyncio.to_thread(in_use, address):
            raise OSError(f"cannot listen on {address}: another process does")
        keep_grpc_running()
        server = grpc.aio.server(
            handlers=[_Methods(self)],
            options=cloud_options(self._limits.connections),
            compression=grpc.Compression.NoCompression,
        )
        credentials = await asyncio.to_thread(server_credentials, self._tls)
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError as fault:
            await server.stop(None)
            raise OSError(f"cannot listen on {address}: in use, or not an address of this machine") from fault
        await server.start()
        self._servers.append(server)
        self._ports.append(port)
        await self._gate.watch(port)
        if len(self._servers) == 1:
            self._tasks.spawn("certificates", self._end_expired())

    def stop_listening(self, lasting_s: float) -> None:
        """Accepts no more. Carriers go on for up to `lasting_s`, and no new one is made over their connections.

        What the kernel has accepted and gRPC has not is reset, and dialled again.
        """
        self._gate.stop_listening()
        for server in self._servers:
            self._tasks.spawn("stop listening", server.stop(lasting_s))

    async def stop(self, grace_s: float) -> None:
        """Closes every carrier and the listeners. Carriers that were told GOAWAY get `grace_s` to have it delivered."""
        self._stopping = True
        self._gate.stop_listening()
        for carrier in tuple(self._carriers):
            carrier.close()
        async with asyncio.TaskGroup() as stopping:
            for server in self._servers:
                stopping.create_task(server.stop(grace_s))
        # They and their handlers hold each other: let them go now, not when the garbage collector comes by.
        self._servers.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._owners.finished()
        await self._owners.aclose()
        await self._gate.aclose()
        await self._tasks.aclose()

    # Internal

    async def connect(self, _requests: object, context: Context) -> None:
        """Serves one Connect call, from its headers to its status."""
        identity = await self._authorising.identity(CONNECT, context)
        peer = readable_peer(context.peer())
        address, _ = split_host_port(peer)
        if self._stopping:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        if self._too_many_silent(address):
            self._authorising.refused[PEER_SAID_NOTHING.code] += 1
            _log.warning(
                "carrier refused: too many silent ones", code=PEER_SAID_NOTHING.code, peer=peer, identity=identity.uri
            )
            text = "too many connections that said nothing: try later"
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, text, PEER_SAID_NOTHING)
        carrier = AcceptedCarrier(context, peer, identity.not_after)
        self._count_while_silent(carrier, address, identity.uri)
        try:
            await context.send_initial_metadata((ACCEPTED, time_header()))
            await self._serve(carrier, identity)
        finally:
            carrier.first_message()
        if carrier.expired:
            text = f"the certificate of {identity.uri} has expired"
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, text, BOX_CERTIFICATE_TIME)

    def _too_many_silent(self, address: str) -> bool:
        limits = self._limits
        return self._silent[address] >= limits.max_silent_per_address or self._silent[_ALL] >= limits.max_silent

    def _count_while_silent(self, carrier: AcceptedCarrier, address: str, uri: str) -> None:
        """Counts a carrier as silent until its first message, or its end; nothing of this is kept after that.

        Of one name, the newest stay: a box that dials again has no use for its dials before.
        """
        timeout_s = self._limits.first_message_timeout_s
        counted = (_ALL, address)
        of_name = self._silent_of.setdefault(uri, [])

        def spoke() -> None:
            timer.cancel()
            of_name.remove(carrier)
            if not of_name:
                self._silent_of.pop(uri, None)
            self._silent.subtract(counted)
            for key in counted:
                if self._silent[key] <= 0:
                    del self._silent[key]

        def end(event: str, reason: str) -> None:
            _log.warning(event, code=PEER_SAID_NOTHING.code, peer=carrier.peer, identity=uri, after_s=timeout_s)
            self._authorising.refused[PEER_SAID_NOTHING.code] += 1
            carrier.end(CarrierLost(f"{carrier.peer}: {reason}", PEER_SAID_NOTHING))

        self._silent.update(counted)
        timer = asyncio.get_running_loop().call_later(
            timeout_s, end, "carrier closed: it said nothing", f"said nothing within {spoken_s(timeout_s)}"
        )
        carrier.when_first_message(spoke)
        of_name.append(carrier)
        if len(of_name) > self._limits.max_silent_per_identity:
            oldest = of_name[0]
            oldest.end(CarrierLost(f"{oldest.peer}: the same name came again", PEER_SAID_NOTHING))
            oldest.first_message()

    async def _serve(self, carrier: AcceptedCarrier, identity: PeerIdentity) -> None:
        """Holds the call open until its carrier is over."""
        self._carriers.add(carrier)
        self._gate.began(carrier.peer)
        self._soonest_end = min(self._soonest_end, carrier.not_after)
        # Its own task: gRPC cancels the handler at any await once the peer is gone, and the owner keeps a session.
        self._owners.spawn(carrier.peer, self._own(carrier, identity))
        try:
            await carrier.ended
        finally:
            # From here on nothing of the carrier may touch the context: gRPC frees the call behind it.
            carrier.end(CarrierLost(f"{carrier.peer}: connection closed"))
            self._gate.ended(carrier.peer)
            self._carriers.discard(carrier)

    async def _own(self, carrier: AcceptedCarrier, identity: PeerIdentity) -> None:
        try:
            await self._on_carrier(carrier, identity.uri, identity.spki_sha256)
        except CarrierLost as lost:
            _log.info("carrier lost", peer=carrier.peer, identity=identity.uri, reason=lost.text)
        finally:
            carrier.close()

    async def _end_expired(self) -> None:
        """Ends each carrier when the certificate that it came with ends."""
        while True:
            now = datetime.now(UTC)
            if self._soonest_end <= now:
                for carrier in [carrier for carrier in self._carriers if carrier.not_after <= now]:
                    carrier.expired = not carrier.ended.done()
                    carrier.end(CarrierLost(f"{carrier.peer}: its certificate has expired", BOX_CERTIFICATE_TIME))
                left = (carrier.not_after for carrier in self._carriers if not carrier.expired)
                self._soonest_end = min(left, default=_NEVER)
            await asyncio.sleep(LOOK_AT_CLOCK_S)


class AcceptedCarrier:
    """The accepting side of one carrier. Its gRPC context is used only while the handler of the call runs."""

    __slots__ = (
        "_context", "_lost", "_on_first_message", "_peer_finished", "_reading", "_writing", "ended", "expired",
        "not_after", "peer",
    )  # fmt: skip

    def __init__(self, context: Context, peer: str, not_after: datetime) -> None:
        self.peer = peer
        self.not_after = not_after
        """The moment at which the peer's certificate ends."""
        self.expired = False
        """Whether the end of the certificate ended the carrier."""
        # No Event, which takes a kilobyte with one waiter, and there are thousands of carriers.
        self.ended = asyncio.get_running_loop().create_future()
        """Done when the handler must return: closed here, or finished; cancelled when gRPC cancelled the handler."""
        self._context = context
        self._reading = OneTask("read")
        self._writing = OneTask("write")
        self._lost: CarrierLost | None = None
        self._peer_finished = False
        self._on_first_message: Callable[[], None] | None = None

    # Public, as Carrier

    async def read(self) -> bytes | None:
        if self._peer_finished and self._lost is None:
            return None
        with Operation(self, self._reading):
            message: bytes | object = await self._context.read()
            if not isinstance(message, bytes):
                await self._fate_of_peer()
                self._peer_finished = True
                return None
        if self._on_first_message is not None:
            self.first_message()
        return message

    async def write(self, message: bytes) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MAX_MESSAGE_BYTES}")
        with Operation(self, self._writing):
            await self._context.write(message)

    async def finish(self) -> None:
        # The status follows what was written, and a gRPC server has no other way to end its direction.
        self.close()

    def close(self) -> None:
        self.end(CarrierLost(f"{self.peer}: closed here"))

    # Internal, for CarrierServer

    def end(self, lost: CarrierLost) -> None:
        """Closes the carrier for a reason; the first reason stays."""
        if self._lost is None:
            self._lost = lost
        self._reading.cut()
        self._writing.cut()
        if not self.ended.done():
            self.ended.set_result(None)

    def when_first_message(self, callback: Callable[[], None]) -> None:
        """Sets what is called once, at the first message or at the end of a carrier that had none."""
        self._on_first_message = callback

    def first_message(self) -> None:
        """Calls what `when_first_message` has set: the peer spoke, or never will."""
        callback, self._on_first_message = self._on_first_message, None
        if callback is not None:
            callback()

    async def _fate_of_peer(self) -> None:
        """Waits a moment for gRPC's cancellation.

        A broken connection reads as an end of messages too, and gRPC cancels the handler, and so us, just after it.
        """
        await asyncio.wait({self.ended}, timeout=_FATE_S)

    def begin(self) -> None:
        if self._lost is not None:
            raise self._lost.again()

    def failed(self, error: BaseException, by_owner: bool) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.close()
            if not by_owner:
                assert self._lost is not None
                raise self._lost.again() from None
        elif isinstance(error, GRPC_ERRORS):
            self.end(lost_from_error(error, self.peer))
            assert self._lost is not None
            raise self._lost.again() from error


class _Methods(grpc.GenericRpcHandler):
    """Maps methods to handlers, bytes in and bytes out: a message is parsed only after its sender was authorised."""

    def __init__(self, server: CarrierServer) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            CONNECT: grpc.stream_stream_rpc_method_handler(server.connect),
            JOIN: grpc.stream_unary_rpc_method_handler(server.requests.join),
            RENEW: grpc.stream_unary_rpc_method_handler(server.requests.renew),
            RECOVER: grpc.stream_unary_rpc_method_handler(server.requests.recover),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)
