"""Turns what is said on one connection into bytes for its socket and back: TLS with half-close, or nothing at all.

No I/O happens here: the caller moves sealed bytes between this and a socket.
"""

from __future__ import annotations

import ssl
from typing import Protocol

from tunnel.aio.sockets.tls_machine import TlsMachine


class Wire(Protocol):
    """Seals what is sent and opens what was received.

    Attributes:
        plain: whether the socket's own end says that a direction ended.
    """

    plain: bool

    def seal(self, data: bytes) -> bytes:
        """Returns the bytes for the socket that say this data."""
        ...

    def finish(self) -> bytes:
        """Returns the bytes for the socket that end our direction."""
        ...

    def pending(self) -> bytes:
        """Returns the wire's own bytes for the socket after `open`: a step of the handshake, or an alert."""
        ...

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """Takes bytes from the socket, none at its end.

        Returns:
            What they say, and whether the other side finished in order.

        Raises:
            ssl.SSLError: it was cut or tampered with.
        """
        ...


class PlainWire:
    """The wire of a unix socket, on which there is nothing to do."""

    plain = True

    def seal(self, data: bytes) -> bytes:
        """Returns the data as it is."""
        return data

    def finish(self) -> bytes:
        """Returns nothing, since the socket's own end says it all."""
        return b""

    def pending(self) -> bytes:
        """Returns nothing."""
        return b""

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """Returns the data as it is, and whether it is the end."""
        return data, not data


class TlsWire:
    """The client's side of TLS."""

    plain = False

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._tls = TlsMachine(context, server_name=host)
        self._waiting = bytearray()

    def seal(self, data: bytes) -> bytes:
        """Returns the data encrypted; what is said before the handshake is over waits for it."""
        self._waiting += data
        self._push()
        return self._tls.to_send()

    def finish(self) -> bytes:
        """Returns a close_notify: the other direction goes on."""
        self._tls.finish()
        return self._tls.to_send()

    def pending(self) -> bytes:
        """Returns the bytes that TLS has of its own: see `Wire`."""
        return self._tls.to_send()

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """Decrypts; the end without close_notify is an error, since bytes may be missing.

        Raises:
            ssl.SSLError: the connection was cut or tampered with, or the handshake failed.
        """
        if data:
            self._tls.receive(data)
        else:
            self._tls.receive_eof()
        self._push()
        opened = bytearray()
        while self._tls.ready and (chunk := self._tls.open()):
            opened += chunk
        return bytes(opened), self._tls.peer_finished

    def _push(self) -> None:
        if (self._tls.ready or self._tls.handshake()) and self._waiting:
            self._tls.seal(self._waiting)
            self._waiting.clear()
