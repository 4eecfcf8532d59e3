"""Accepts local connections for front ends: TCP, TLS and unix sockets, each connection in a task of its own.

How many there may be is limited here; who they are, and how long they may take to say it, is the handler's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from tunnel.aio.identity.validity import clock_says
from tunnel.aio.process.blocking import make_in_thread
from tunnel.aio.process.limit_use import most, one_less
from tunnel.aio.process.parts import PartFailed
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.binding import UNIX_MODE, PathTaken, UnixPath, bind_unix, reason_of
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.handshake_fault import Cause, HandshakeFault
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.aio.sockets.strangers import Stranger, StrangerLimits, Strangers, client_of
from tunnel.aio.sockets.tcp import abort_with_reset, reset_when_closed
from tunnel.aio.sockets.tls import HANDSHAKE_TIMEOUT_S, TlsTransport
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.faults import CANNOT_LISTEN, PEER_CERTIFICATE_REFUSED, TOO_MANY_CLIENTS
from tunnel.core.wire.host_port import split_host_port
from tunnel.core.wire.target_rule import MAX_PORT

_log = structlog.get_logger("tunnel.listener")

BACKLOG = 1024
LINGER_S = 2.0
LINGER_BYTES = 4 * 1024 * 1024
"""What a client may still send after our last word, such as the rest of a request that is too long: closing on unread
bytes would reset that word away, and Go's clients tell of the reset that they wrote into, not of what they can read."""
WARN_EVERY_S = 10.0
SETTLE_S = 2.0
"""Seconds that clients that were accepted before a stop have to say what they want."""
SETTLE_POLL_S = 0.02
RESERVED_FILES = 32
"""How many descriptors connections leave to the daemon's own files and dials. Without any left, uvloop would accept and
close: an end that looks clean, where a reset is due.
"""

Handler = Callable[[Conn], Awaitable[None]]
"""Serves a connection, which is closed when the handler returns. A StreamError that comes out of it is no fault."""


class ListenFailed(PartFailed):
    """A listener could not be opened; the text says where, and why."""

    default_fault = CANNOT_LISTEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many connections one front end takes. Whoever comes above a limit is reset."""

    connections: int = 8192
    """The most connections at once; with two descriptors a connection this stays within a limit of 20,000 files."""
    per_address: int = 1024
    """The most TLS connections of one IPv4 address or IPv6 /64, so that one client cannot take all there are."""
    handshakes_per_address: int = 64
    """How many of these may be in their handshake: it is what costs us, and strangers can begin it."""
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S


class Listener:
    """The listeners of one front end."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        limits: Limits | None = None,
        sockets: ListeningSockets | None = None,
        handshakes_failed: Counter[Cause] | None = None,
        strangers: StrangerLimits | None = None,
    ) -> None:
        """Listen to nothing yet.

        Args:
            name: for logs, and for the descriptors that are handed from process to process.
            handler: serves each connection.
            limits: None for the usual ones.
            sockets: of the daemon; None when they live no longer than this listener.
            handshakes_failed: counts the TLS handshakes that fail; None when nobody asks for that.
            strangers: what clients may take before the handler calls `known` of their connections; None where nobody
                asks clients who they are.
        """
        self.name = name
        self._kept = sockets or ListeningSockets()
        self._handler = handler
        self.limits = limits or Limits()
        """What it takes; may be replaced, and holds for those who come."""
        self._tasks = TaskOwner(name)
        self._fresh: set[Conn] = set()
        self._servers: list[tuple[asyncio.Server, socket.socket]] = []
        self._paths: list[UnixPath] = []
        self._removals: list[asyncio.Future[None]] = []
        self._by_address: Counter[str] = Counter()
        self._handshakes: Counter[str] = Counter()
        self._handshakes_failed: Counter[Cause] = Counter() if handshakes_failed is None else handshakes_failed
        self.strangers = None if strangers is None else Strangers(strangers)
        """The clients that have not shown who they are; None where nobody asks them."""
        self._accepting = True
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self._refused = 0
        self._warned_s = float("-inf")
        self.ports: list[int] = []
        """The bound TCP ports, in the order of the calls."""

    @property
    def connections(self) -> int:
        """Returns how many connections are being served."""
        return len(self._tasks)

    @property
    def most_of_one(self) -> int:
        """Returns how many TLS connections are of the address with the most."""
        return most(self._by_address.values())

    @property
    def most_handshakes_of_one(self) -> int:
        """Returns how many TLS handshakes are under way of the address with the most."""
        return most(self._handshakes.values())

    async def listen_tcp(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        """Listens on `host:port`; port 0 takes a free one. All TLS of one listener has one context.

        Raises:
            ListenFailed: the address cannot be bound.
        """
        host, port = split_host_port(address)
        if not (port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
            raise ListenFailed(f"{address!r} is not host:port, with a port up to {MAX_PORT}")
        self._context = tls
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            addresses = dict.fromkeys((int(family), where) for family, _, _, _, where in found)
            bound = self._kept.bind_tcp(self.name, list(addresses))
        except OSError as error:
            raise ListenFailed(f"cannot listen on {address}: {reason_of(error)}") from error
        factory = self._plain if tls is None else self._secured
        for sock in bound:
            reset_when_closed(sock)
            server = await loop.create_server(factory, sock=sock, backlog=BACKLOG, start_serving=False)
            await self._opened(server, sock)
        if self._accepting:
            self.ports.append(bound[0].getsockname()[1])

    async def listen_unix(self, path: Path, mode: int = UNIX_MODE) -> None:
        """Listens on a unix socket. A socket that nobody listens on any more is replaced.

        Raises:
            ListenFailed: the path is in use, is something else, or cannot be made.
        """
        handed = self._kept.claim_unix(self.name, path)
        try:
            sock, made = await make_in_thread(partial(bind_unix, path, mode, handed), _unbind)
        except (OSError, PathTaken) as error:
            raise ListenFailed(f"cannot listen on {path}: {reason_of(error, path=True)}") from error
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._plain, sock=sock, backlog=BACKLOG, start_serving=False)
        self._paths.append(made)
        await self._opened(server, sock)

    def renew_context(self, context: ssl.SSLContext) -> None:
        """Shows new connections the certificate of this context; those that run keep what they were shown."""
        if self._context is not None:
            self._context = context

    @property
    def undecided(self) -> int:
        """Returns how many connections were accepted and have not come to what they are for: they are in their
        handshake, or in their first request.
        """
        return sum(not conn.settled for conn in self._fresh) + self._handshakes.total()

    def close(self, *, for_good: bool = False) -> None:
        """Accepts no more connections; those that run go on. What is being opened is closed as soon as it is open.

        With `for_good`, nobody will listen here in this process' place: neither a process that takes over nor the next
        one that the service manager starts.
        """
        self._accepting = False
        lasting = self._kept.outlive and not for_good
        for server, sock in self._servers:
            self._kept.closed(sock, for_good=not lasting)
            server.close()
        if not lasting:
            loop = asyncio.get_running_loop()
            self._removals += [loop.run_in_executor(None, made.remove) for made in self._paths]
        self._servers.clear()
        self._paths.clear()

    async def aclose(self) -> None:
        """Accepts no more connections, and ends those that run."""
        self._closed = True
        self.close()
        await self._tasks.aclose()
        await asyncio.gather(*self._removals)

    # Internal

    async def _opened(self, server: asyncio.Server, sock: socket.socket) -> None:
        self._servers.append((server, sock))
        self._kept.opened(self.name, sock)
        if not self._accepting:  # closed meanwhile
            self.close()
            return
        await self._kept.begin(lambda: self._begin(server))

    async def _begin(self, server: asyncio.Server) -> None:
        if self._accepting:
            await server.start_serving()

    def _plain(self) -> Conn:
        return Conn(self._made_plain)

    def _secured(self) -> TlsTransport:
        assert self._context is not None
        timeout_s = self.limits.handshake_timeout_s
        conn, visit = Conn(self._made), _Visit(self)
        conn.when_known(visit.known)
        return TlsTransport(self._context, conn, visit, handshake_timeout_s=timeout_s)

    def _made_plain(self, conn: Conn) -> None:
        if (stranger := self.meet(conn.transport)) is not None:
            conn.when_known(stranger.left)
            conn.closed.add_done_callback(lambda _closed: stranger.left())
        self._made(conn)

    def _made(self, conn: Conn) -> None:
        if self._closed:  # accepted by the event loop just before
            conn.reset()
            return
        full = len(self._tasks) >= self.limits.connections
        if refusal := "too many connections" if full else _lack_of_files(conn.transport):
            self.refuse(conn.transport, refusal)
            return
        self._fresh.add(conn)
        serving = self._tasks.spawn(f"connection {conn.peer}", self._serve(conn))
        # Not in _serve: a task that is cancelled before its first step runs nothing of it.
        serving.add_done_callback(lambda _serving: self._served(conn))

    def _served(self, conn: Conn) -> None:
        self._fresh.discard(conn)
        conn.close()

    async def _serve(self, conn: Conn) -> None:
        try:
            await self._handler(conn)
            if not conn.transport.is_closing():
                await _linger(conn)
        except StreamError as error:
            _log.debug("connection ended", frontend=self.name, peer=conn.peer, reason=str(error))
            conn.reset(error.code, str(error))
        except Exception:
            conn.reset(Code.INTERNAL)  # who knows what is missing
            raise

    # Internal - for _Visit

    def meet(self, transport: asyncio.Transport) -> Stranger | None:
        """Takes a new connection into the pool of strangers; returns None where there is none, and for unix sockets,
        whose mode says who may come.
        """
        address = client_of(transport.get_extra_info("peername"))
        if self.strangers is None or not address:
            return None
        ended = self.strangers.ended
        stranger = self.strangers.enter(address, lambda: abort_with_reset(transport))
        if self.strangers.ended > ended:
            self._warn("a client that had not shown who it is made room for another")
        return stranger

    def enter(self, address: str) -> str:
        """Counts a TLS connection; returns why it may not come in, empty when it may."""
        limits = self.limits
        if self._by_address.total() >= limits.connections:
            return "too many connections"
        if self._by_address[address] >= limits.per_address:
            return f"too many connections from {address}"
        if self._handshakes[address] >= limits.handshakes_per_address:
            return f"too many unfinished TLS handshakes from {address}"
        self._by_address[address] += 1
        self._handshakes[address] += 1
        return ""

    def secured(self, address: str) -> None:
        """Counts one handshake less: it is over, one way or the other."""
        one_less(self._handshakes, address)

    def left(self, address: str) -> None:
        """Counts one connection less: it is gone."""
        one_less(self._by_address, address)

    def failed(self, address: str, fault: HandshakeFault) -> None:
        """Counts a connection whose TLS handshake failed, and logs it: as a warning when a certificate is the cause.

        Anyone who scans ports fails in another way, which is no matter for an operator's eyes.
        """
        self._handshakes_failed[fault.cause] += 1
        level = _log.warning if fault.of_certificate else _log.debug
        # Without the port: lines of one address are folded.
        level(
            "peer refused in the TLS handshake",
            code=PEER_CERTIFICATE_REFUSED.code,
            frontend=self.name,
            address=address,
            reason=fault.text,
            **({"clock": clock_says()} if fault.of_time else {}),
        )

    def refuse(self, transport: asyncio.Transport, reason: str) -> None:
        """Resets a connection above a limit, and says so now and then."""
        abort_with_reset(transport)
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        self._refused += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._warned_s >= WARN_EVERY_S:
            _log.warning(
                "connections refused",
                code=TOO_MANY_CLIENTS.code,
                frontend=self.name,
                reason=reason,
                count=self._refused,
            )
            self._warned_s = now_s
            self._refused = 0


async def settled(undecided: Callable[[], int]) -> None:
    """Waits until whoever was accepted has a stream or an answer, but no longer than SETTLE_S.

    `undecided` returns how many have none; see `Listener.undecided`.
    """
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + SETTLE_S
    await asyncio.sleep(SETTLE_POLL_S)  # what the event loop has accepted is counted from its next turns on
    while undecided() and loop.time() < give_up_s:  # noqa: ASYNC110 - many things make it so
        await asyncio.sleep(SETTLE_POLL_S)


# Internal


class _Visit:
    """One TLS connection at the gate. What it was counted as is taken back once, however it ends."""

    __slots__ = ("_address", "_handshaking", "_listener", "_stranger")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._address: str | None = None
        self._handshaking = False
        self._stranger: Stranger | None = None

    def admit(self, transport: asyncio.Transport) -> bool:
        address = client_of(transport.get_extra_info("peername"))
        if refusal := _lack_of_files(transport) or self._listener.enter(address):
            self._listener.refuse(transport, refusal)
            return False
        self._address = address
        self._handshaking = True
        self._stranger = self._listener.meet(transport)
        return True

    def secured(self) -> None:
        if self._handshaking and self._address is not None:
            self._handshaking = False
            self._listener.secured(self._address)

    def failed(self, fault: HandshakeFault) -> None:
        self._listener.failed(self._address or "", fault)
        self.secured()

    def known(self) -> None:
        if self._stranger is not None:
            self._stranger.left()

    def left(self) -> None:
        self.secured()
        self.known()
        if self._address is not None:
            self._listener.left(self._address)
            self._address = None


def _lack_of_files(transport: asyncio.Transport) -> str:
    """Returns why an accepted connection cannot stay, or nothing: the kernel gives it the lowest number
    that is free.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if transport.get_extra_info("socket").fileno() < limit - RESERVED_FILES:
        return ""
    return f"too few file descriptors: this process may have {limit}"


async def _linger(conn: Conn) -> None:
    """Finishes our direction, and lets the client finish its own before the socket goes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            await conn.write_eof()
            taken = 0
            while taken < LINGER_BYTES and (data := await conn.read()):
                taken += len(data)


def _unbind(bound: tuple[socket.socket, UnixPath]) -> None:
    sock, made = bound
    sock.close()
    with contextlib.suppress(OSError):
        made.remove()
