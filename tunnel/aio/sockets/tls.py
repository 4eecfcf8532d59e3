"""TLS on a socket. Unlike asyncio's it has true half-close; unlike uvloop's it delivers all that came before an end.

It stands between a plain transport and a protocol: to the one a protocol, to the other a transport. The end of a
direction is a `close_notify`, each direction on its own; a connection that ends without one was cut, and is reported as
a reset. TLS itself is in `tls_machine.py`; who may connect is decided elsewhere, and certificates are checked by the
context (`tls_context.py`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Protocol

from tunnel.aio.sockets.handshake_fault import Cause, HandshakeFault, fault_of
from tunnel.aio.sockets.read_buffer import READ_BUFFER
from tunnel.aio.sockets.tcp import end_in_order
from tunnel.aio.sockets.tls_machine import TlsMachine
from tunnel.core.wire.spoken import spoken_s

HANDSHAKE_TIMEOUT_S = 10.0


class Gate(Protocol):
    """Watches one connection for whoever counts them."""

    def admit(self, transport: asyncio.Transport) -> bool:
        """Returns whether a connection that the kernel accepted may stay; False ends it before anything is read."""
        ...

    def secured(self) -> None:
        """Is called when the handshake is over."""
        ...

    def failed(self, fault: HandshakeFault) -> None:
        """Is called when there was no handshake; `fault` says why."""
        ...

    def left(self) -> None:
        """Is called when the connection is gone. It is always the last call, whatever came before."""
        ...


class TlsTransport(asyncio.BufferedProtocol, asyncio.Transport):
    """One end of a TLS connection: the raw transport's protocol and the application protocol's transport.

    The application's `connection_made` follows the handshake. `get_extra_info` knows `peercert`, `peercert_der` and
    `alpn_protocol` (None when none was agreed on) beside what the raw transport knows; `ssl_object` stays unknown,
    since that name makes others believe that there is no half-close.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        application: asyncio.BaseProtocol,
        gate: Gate,
        *,
        server_side: bool = True,
        server_name: str | None = None,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        """Prepares one end, to be used as the protocol of a raw transport.

        Args:
            context: certificates, and how they are checked.
            application: is told of the connection when `gate` has let it in and the handshake is over.
            gate: see there.
            server_side: whether the other side speaks first.
            server_name: as a client, whose certificate is expected; None as a server.
            handshake_timeout_s: seconds from the connection to the end of the handshake.
        """
        super().__init__()
        self._protocol = application
        self._gate = gate
        self._handshake_timeout_s = handshake_timeout_s
        self._server_side = server_side
        self._tls = TlsMachine(context, server_side=server_side, server_name=server_name)
        self.handshake_fault: ssl.SSLError | None = None
        """What TLS itself found wrong, when that is why there was no handshake; else None."""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._made = False
        self._paused = False
        self._raw_eof = False
        self._peer_eof = False
        """Whether the application was told of the peer's end."""
        self._sent_eof = False
        self._closing = False
        self._in_order = False
        """Whether it is closed behind our last word, so that there is no reset."""
        self._failure: Exception | None = None

    # Public - asyncio.Transport, for the application

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns what is known under a name, as the class says; `default` when nothing is."""
        if name == "ssl_object":
            return default
        if name == "peercert":
            return self._tls.connection.getpeercert()
        if name == "peercert_der":
            return self._tls.connection.getpeercert(binary_form=True)
        if name == "alpn_protocol":
            return self._tls.connection.selected_alpn_protocol() or default
        return self._lower.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hands the application's end to another protocol; pause reading first."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Returns the application protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Returns whether the connection is closed or on its way to that."""
        return self._closing or self._lower.is_closing()

    def is_reading(self) -> bool:
        """Returns whether the application gets data."""
        return not self._paused and not self.is_closing()

    def pause_reading(self) -> None:
        """Stops calling `data_received` from now on."""
        self._paused = True
        if not self._raw_eof and self._lower.is_reading():
            self._lower.pause_reading()

    def resume_reading(self) -> None:
        """Goes on, with what was decrypted or read before first."""
        if self._paused:
            self._paused = False
            asyncio.get_running_loop().call_soon(self._deliver)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts data and sends it; it is dropped when the direction was finished."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Encrypts several pieces of data and sends them in one go."""
        if self._sent_eof or self.is_closing():
            return
        try:
            for data in list_of_data:
                self._tls.seal(data)
        except ssl.SSLError as fault:
            self._fail(fault)
            return
        self._flush()

    def can_write_eof(self) -> bool:
        """Returns True: TLS can end one direction."""
        return True

    def write_eof(self) -> None:
        """Sends `close_notify` behind what was written; reading goes on."""
        if self._sent_eof or self.is_closing():
            return
        self._finish()

    def close(self) -> None:
        """Ends both directions behind what was written."""
        if self.is_closing():
            return
        if not self._sent_eof:
            self._finish()
        self._closing = self._in_order = True
        self._tls.forget()
        self._lower.close()

    def abort(self) -> None:
        """Ends the connection at once; what was not sent is lost."""
        self._closing = True
        self._in_order = False
        self._tls.forget()
        self._lower.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Sets the limits of the raw transport: nothing else buffers."""
        self._lower.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Returns how many encrypted bytes the socket did not take yet."""
        return self._lower.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Returns the limits of the raw transport, low and high."""
        return self._lower.get_write_buffer_limits()

    # Internal - asyncio.BufferedProtocol, for the raw transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins when the raw connection is up: as a server waits for the client's hello, as a client sends it."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclasses
        if not self._gate.admit(self._lower):
            self._failure = ConnectionAbortedError("not admitted")
            self.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(self._handshake_timeout_s, self._handshake_timed_out)
        if not self._server_side:
            self._handshake()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Returns room for a read."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Takes encrypted bytes that arrived."""
        if self._closing:
            return
        self._tls.receive(READ_BUFFER[:nbytes])  # all of it, before the buffer is read into again
        if self._made or self._handshake():
            self._deliver()

    def eof_received(self) -> bool:
        """Takes the end of the socket. That is an end only behind `close_notify`; else the connection was cut."""
        self._raw_eof = True
        if not self._made:
            self._handshake_failed(HandshakeFault(Cause.LEFT, "the other side left during the TLS handshake"))
            return False
        self._deliver()
        return True

    def pause_writing(self) -> None:
        """Tells the application that the raw buffer is full."""
        if self._made:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Tells the application that the raw buffer has room."""
        if self._made:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the application and the gate that the connection is gone, but for the socket itself."""
        if exc is None and self._in_order:
            end_in_order(self._lower)
        self._closing = True
        self._tls.forget()
        self._stop_timer()
        if self._made:
            self._protocol.connection_lost(self._failure or exc)
        elif self._failure is None:
            self._handshake_failed(HandshakeFault(Cause.LEFT, "the connection was lost during the TLS handshake"))
        self._gate.left()

    # Internal - handshake

    @property
    def _lower(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def _handshake(self) -> bool:
        """Does one step of the handshake, and returns whether it is over."""
        try:
            if not self._tls.handshake():
                self._flush()
                return False
        except ssl.SSLError as fault:
            self._flush()  # the alert that tells the other side
            self.handshake_fault = fault
            self._handshake_failed(fault_of(fault))
            return False
        self._flush()
        self._stop_timer()
        self._made = True
        self._gate.secured()
        self._protocol.connection_made(self)
        return True

    def _handshake_timed_out(self) -> None:
        text = f"no TLS handshake within {spoken_s(self._handshake_timeout_s)}"
        self._handshake_failed(HandshakeFault(Cause.TIMED_OUT, text))
        self._lower.abort()

    def _handshake_failed(self, fault: HandshakeFault) -> None:
        if self._failure is None:
            self._stop_timer()
            self._failure = ConnectionAbortedError(fault.text)
            self._closing = self._in_order = True  # the alert is to arrive
            self._gate.failed(fault)
            self._lower.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Internal - data

    def _deliver(self) -> None:
        """Gives the application what it may have, then reads on from the socket if it wants more."""
        try:
            while not self._paused and not self.is_closing() and not self._peer_eof:
                if not self._deliver_some():
                    self._on_drained()
                    break
        except ssl.SSLError as fault:
            self._fail(fault)
        except Exception as fault:
            # The application's own. Called by `resume_reading`, the event loop would only log it.
            self._fail(fault)
            raise
        if not self._paused and not self.is_closing() and not self._raw_eof and not self._lower.is_reading():
            self._lower.resume_reading()

    def _deliver_some(self) -> bool:
        """Calls the application once; returns False when nothing is left to decrypt."""
        protocol = self._protocol
        if not isinstance(protocol, asyncio.BufferedProtocol):
            data = self._tls.open()
            if data:
                protocol.data_received(data)  # type: ignore[attr-defined]
            return bool(data)
        room = memoryview(protocol.get_buffer(-1))
        count = 0
        while count < len(room) and (more := self._tls.open_into(room[count:])):
            count += more
        if count:
            protocol.buffer_updated(count)
        return count > 0

    def _on_drained(self) -> None:
        """Finds out whether this is the end, when everything that came was delivered."""
        if self._tls.peer_finished or (self._raw_eof and self._sent_eof):
            # Many clients answer our close_notify by closing the socket: what ends behind our end is no cut.
            self._peer_eof = True
            if not self._protocol.eof_received():  # type: ignore[attr-defined]
                self.close()
        elif self._raw_eof:
            self._fail(ConnectionResetError("the connection ended without a TLS close_notify"))

    def _finish(self) -> None:
        self._sent_eof = True
        try:
            self._tls.finish()
        except ssl.SSLError as fault:
            self._fail(fault)
        self._flush()

    def _flush(self) -> None:
        if not self._lower.is_closing() and (sealed := self._tls.to_send()):
            self._lower.write(sealed)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._flush()
            self.abort()
