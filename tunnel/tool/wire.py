"""One connection to the CONNECT front end, as bytes in and bytes out: TLS with half-close, or nothing at all.

No I/O happens here: the caller moves sealed bytes between this and a socket.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Protocol


class Wire(Protocol):
    """Seals what is sent and opens what was received.

    Attributes:
        plain: the socket's own end says that a direction ended.
    """

    plain: bool

    def seal(self, data: bytes) -> bytes:
        """Bytes for the socket."""
        ...

    def finish(self) -> bytes:
        """Bytes for the socket that end our direction."""
        ...

    def pending(self) -> bytes:
        """Bytes for the socket that the wire has of its own after `open`: a step of the handshake, an alert."""
        ...

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """From the socket; empty at its end. Returns what it says, and whether the other side finished in order.

        Raises:
            ssl.SSLError: it was cut or tampered with.
        """
        ...


class PlainWire:
    """A unix socket: nothing to do."""

    plain = True

    def seal(self, data: bytes) -> bytes:
        """As it is."""
        return data

    def finish(self) -> bytes:
        """The socket's own end says it all."""
        return b""

    def pending(self) -> bytes:
        """Nothing."""
        return b""

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """As it is."""
        return data, not data


class TlsWire:
    """The client's side of TLS."""

    plain = False

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._waiting = bytearray()
        self._ready = False

    def seal(self, data: bytes) -> bytes:
        """What is said before the handshake is over waits for it."""
        self._waiting += data
        self._push()
        return self._outgoing.read()

    def finish(self) -> bytes:
        """Close_notify: the other direction goes on."""
        with contextlib.suppress(ssl.SSLWantReadError):  # the other side's own end may come much later
            self._tls.unwrap()
        return self._outgoing.read()

    def pending(self) -> bytes:
        """See `Wire`."""
        return self._outgoing.read()

    def open(self, data: bytes) -> tuple[bytes, bool]:
        """Decrypt; the end without close_notify is an error, since bytes may be missing."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._push()
        opened = bytearray()
        try:
            while self._ready and (chunk := self._tls.read(65536)):
                opened += chunk
        except ssl.SSLWantReadError:
            return bytes(opened), False
        except ssl.SSLZeroReturnError:
            return bytes(opened), True
        return bytes(opened), self._ready

    def _push(self) -> None:
        if not self._ready:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return
            self._ready = True
        if self._waiting:
            self._tls.write(bytes(self._waiting))
            self._waiting.clear()
