"""A socket as a Duplex: TCP, TLS or unix, accepted or dialled, with a bounded read buffer.

A splice may take it over.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tunnel.aio.sockets.read_buffer import READ_BUFFER
from tunnel.aio.sockets.tcp import abort_with_reset, end_in_order
from tunnel.core.wire.errors import Code, StreamBusy, StreamClosed, StreamError, StreamReset

READ_BUFFER_BYTES = 64 * 1024
"""How many bytes may come ahead of the reader before reading pauses: a head, and a little of what follows it."""
PAUSED_READ_BYTES = 512
"""How many bytes one reads that was to begin paused. What targets say at once stays in their sockets: some
128 kB of each would be here before anyone asks how much there is room for.
"""
_buffer = READ_BUFFER[:READ_BUFFER_BYTES]
_TCP_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""The options of a TCP socket. A silent peer that vanished (power, network) is noticed within two minutes; else its
stream would stay for ever.

No TCP_USER_TIMEOUT: Linux applies it to a peer that is there and only does not read, too.
"""


class TlsPeer(NamedTuple):
    """What the certificate of a TLS client says, which TLS has verified."""

    uri: str | None
    """The one spiffe:// name in it; None when there is no certificate, or it has none or several."""
    serial: str
    """The serial number of the certificate in lower-case hexadecimal; empty without a certificate."""
    until: datetime | None
    """When the certificate ends; None without one."""
    since: datetime | None
    """When the certificate begins to be valid; None without one."""


class UnixPeer(NamedTuple):
    """Who opened the other end of a unix socket, as the kernel tells it (SO_PEERCRED)."""

    pid: int
    """The id of the process; 0 when it cannot be seen from here, as in another container."""
    uid: int
    gid: int


NO_CERTIFICATE = TlsPeer(None, "", None, None)


class Detached(NamedTuple):
    """A socket on its way to a splice."""

    transport: asyncio.Transport
    leftover: bytes
    """What was read from the socket and not taken yet."""
    at_eof: bool
    """Whether the socket's peer finished behind that."""


class Conn(asyncio.BufferedProtocol):
    """One connection, which reads and writes as `Duplex` says."""

    def __init__(self, on_made: Callable[[Conn], None] | None = None, *, paused: bool = False) -> None:
        """`on_made` is called when the connection is up (after the TLS handshake).

        With `paused` nothing is read from the socket before somebody reads here, or takes it over.
        """
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._eof = False
        self._sent_eof = False
        self._error: StreamError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._write_paused = False
        self._read_paused = paused
        self._in_order = False
        """Whether this side closes it behind its last word, so that there is no reset."""
        self._closed = asyncio.get_running_loop().create_future()
        self._when_known: Callable[[], None] | None = None
        self.settled = False
        """Whether what the connection is for is known and under way: it was detached, or its handler says so."""
        self.peer = ""
        """The other end for logs: `192.0.2.1:5000`, or `uid 1000` on a unix socket. It stays when the connection is
        gone, which is when the socket no longer tells.
        """

    # Public

    def known(self) -> None:
        """Tells the listener that the client has shown who it is: the connection is a user's from here on."""
        callback, self._when_known = self._when_known, None
        if callback is not None:
            callback()

    def when_known(self, callback: Callable[[], None]) -> None:
        """Sets what is called once, when the client has shown who it is."""
        self._when_known = callback

    @property
    def transport(self) -> asyncio.Transport:
        """Returns the transport, which exists once the connection was made."""
        assert self._transport is not None
        return self._transport

    @property
    def tls_peer_spiffe(self) -> str | None:
        """Returns the one spiffe:// URI of a verified client certificate; None without one."""
        certificate: dict[str, Any] = self.transport.get_extra_info("peercert") or {}
        uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
        return uris[0] if len(uris) == 1 and uris[0].startswith("spiffe://") else None

    @property
    def tls_peer(self) -> TlsPeer:
        """Returns what the client's certificate says; it is read anew at each call."""
        certificate: dict[str, Any] = self.transport.get_extra_info("peercert") or {}
        if not certificate:
            return NO_CERTIFICATE
        until, since = certificate_time(certificate["notAfter"]), certificate_time(certificate["notBefore"])
        return TlsPeer(self.tls_peer_spiffe, str(certificate["serialNumber"]).lower(), until, since)

    @property
    def unix_peer(self) -> UnixPeer | None:
        """Returns who is at the other end of a unix socket; None on any other."""
        sock = self.transport.get_extra_info("socket")
        return unix_peer(sock) if sock is not None and sock.family == socket.AF_UNIX else None

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Waits for bytes and returns up to `max_bytes`; `b""` when the other side finished. See `Duplex.read`.

        Raises:
            StreamReset, StreamClosed: the connection was reset, or closed by this side.
            StreamBusy: another task is reading.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._eof:
                return b""
            if self._reader is not None:
                raise StreamBusy("another task reads this connection")
            if self._read_paused:
                self._read_paused = False
                self.transport.resume_reading()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        chunk = self._chunks.pop(0)
        if len(chunk) > max_bytes:
            self._chunks.insert(0, chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self._buffered -= len(chunk)
        if self._read_paused and self._buffered <= READ_BUFFER_BYTES // 2:
            self._read_paused = False
            self.transport.resume_reading()
        return chunk

    async def first_bytes(self, max_bytes: int) -> bytes:
        """Returns what the other side sent along with its first packet, up to `max_bytes`; it stays to be read.

        It waits for one turn of the event loop and no longer: empty is an answer too.
        """
        if not self._chunks:
            await asyncio.sleep(0)
        return self._chunks[0][:max_bytes] if self._chunks else b""

    def skip(self, count: int) -> None:
        """Drops bytes from the start of what waits to be read; `first_bytes` has returned them."""
        if count:
            self._chunks[0] = self._chunks[0][count:]
            self._buffered -= count

    def unread(self, data: bytes) -> None:
        """Gives back what was read: the next read returns it first."""
        self._chunks.insert(0, data)
        self._buffered += len(data)

    async def write(self, data: bytes | memoryview) -> None:
        """Hands bytes over, and waits while the other side is slow. See `Duplex.write`.

        Raises:
            StreamReset, StreamClosed: the bytes may not arrive.
            StreamBusy: another task is writing.
        """
        if self._error is not None:
            raise self._error
        if self._sent_eof or self.transport.is_closing():
            raise StreamClosed("this side had finished")
        if self._writer is not None:
            raise StreamBusy("another task writes this connection")
        self.transport.write(data)
        while self._write_paused and self._error is None:
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        if self._error is not None:
            raise self._error

    async def write_eof(self) -> None:
        """Finishes this direction. TLS has no half-close in asyncio: there `aclose` ends both."""
        if not self._sent_eof and not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
        self._sent_eof = True

    def close(self) -> None:
        """Closes the connection behind what was written; the rest is done in the background."""
        if self._error is None:
            self._in_order = True
        if self._transport is not None:
            self._transport.close()

    async def aclose(self) -> None:
        """Closes the connection, as a Duplex does."""
        self.close()

    def reset(self, code: Code = Code.CANCELLED, text: str = "") -> None:
        """Closes the connection at once: the other side sees RST. `code` and `text` stay on this side."""
        if self._error is None:
            self._error = StreamClosed(text or "reset by this side", code)
        self._in_order = False
        if self._transport is not None and not self._closed.done():  # asyncio fails to abort what is gone
            abort_with_reset(self._transport)
        self._wake()

    def detach(self) -> Detached:
        """Hands the socket to a splice; reading is paused.

        Raises:
            StreamReset, StreamClosed: the connection is gone already.
        """
        if self._error is not None:
            raise self._error
        if not self._eof:
            self.transport.pause_reading()  # also where it is paused: a splice depends on it
        leftover = b"".join(self._chunks)
        self._chunks.clear()
        self.settled = True
        return Detached(self.transport, leftover, self._eof)

    @property
    def closed(self) -> asyncio.Future[None]:
        """Returns a future that is done when the connection is gone. Do not cancel it."""
        return self._closed

    async def lost(self) -> None:
        """Waits until the connection is gone, without reading."""
        await asyncio.shield(self._closed)

    # Internal - called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport: the connection is up."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self.peer = _peer(self.transport)
        _tune(self.transport)
        if self._read_paused:
            # Event loops begin to read behind this call, whatever was said in it.
            asyncio.get_running_loop().call_soon(self._begin_paused)
        if self._on_made is not None:
            self._on_made(self)

    def _begin_paused(self) -> None:
        if self._read_paused and not self.transport.is_closing():
            self.transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the event loop's signature
        """Returns the buffer for the next read.

        One that was to begin paused may read once: uvloop does before its next turn. All that a target has said stays
        in the kernel then, but for a little.
        """
        return _buffer[:PAUSED_READ_BYTES] if self._read_paused else _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Keeps bytes that came for the reader, and pauses reading when there are many."""
        self._chunks.append(bytes(_buffer[:nbytes]))
        self._buffered += nbytes
        if self._buffered > READ_BUFFER_BYTES or self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        """Notes that the other side finished; a plain socket stays open for our direction."""
        self._eof = True
        self._wake_reader()
        return self.transport.get_extra_info("ssl_object") is None

    def pause_writing(self) -> None:
        """Makes the writer wait: the transport's buffer is full."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Lets the writer go on: the transport's buffer has room."""
        self._write_paused = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends reads and writes: the connection is gone, but for the socket itself."""
        if exc is None and self._in_order:
            end_in_order(self.transport)
        if self._error is None and (exc is not None or not self._eof):
            self._error = reset_of(exc) if exc is not None else StreamClosed("the connection was closed")
        self._write_paused = False
        if not self._closed.done():
            self._closed.set_result(None)
        self._wake()

    def _wake(self) -> None:
        self._wake_reader()
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


@functools.lru_cache(maxsize=1024)
def certificate_time(text: str) -> datetime:
    """Returns the moment that `ssl` writes as `text`.

    To read one takes 7 us, and the same ones come again and again.
    """
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def reset_of(error: Exception) -> StreamReset:
    """Returns the stream error for a socket that failed."""
    if isinstance(error, ssl.SSLError):
        return StreamReset("TLS failed on the local connection", Code.CONNECTION_RESET)
    return StreamReset("the local connection was reset", Code.CONNECTION_RESET)


def unix_peer(sock: socket.socket) -> UnixPeer:
    """Returns who opened the other end of a unix socket; see unix(7)."""
    return UnixPeer._make(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


def _peer(transport: asyncio.Transport) -> str:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return f"uid {unix_peer(sock).uid}"
    return format_address(transport.get_extra_info("peername"))


def _tune(transport: asyncio.Transport) -> None:
    """Makes a TCP socket send small writes at once, and notice a peer that vanished."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        # The event loop's own stand-in would make a socket object for each option.
        real = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
        try:
            for level, option, value in _TCP_OPTIONS:
                real.setsockopt(level, option, value)
        finally:
            real.detach()


def format_address(address: object) -> str:
    """Returns a socket address as people write it; empty for none."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address or "")
