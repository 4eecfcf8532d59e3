"""TLS without I/O: sealed bytes in and out on one side, plain ones on the other, each direction with an end of its own.

Who uses it moves the sealed bytes: `tls.py` for the daemons' sockets, `tunnel/tool/wire.py` for the operator's command,
which is why nothing is imported here but Python's `ssl`.
"""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import suppress

READ_BYTES = 256 * 1024
"""The most bytes that are opened at a time."""


class TlsMachine:
    """One end of a TLS connection.

    Attributes:
        ready: the handshake is over.
        peer_finished: the other side's `close_notify` was read, behind its last byte.
        connection: what it is of, for what was agreed on in the handshake.
    """

    __slots__ = ("_early", "_incoming", "_outgoing", "connection", "peer_finished", "ready")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = False, server_name: str | None = None) -> None:
        """Prepares one end. Nothing is sent before `handshake`.

        Args:
            context: certificates, and how they are checked.
            server_side: whether the other side speaks first.
            server_name: as a client, whose certificate is expected; None as a server.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.connection = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self.ready = False
        self.peer_finished = False
        self._early: deque[bytes] = deque()
        """What was opened before it was asked for; only behind the end of our direction."""

    # Public - sealed bytes

    def receive(self, sealed: bytes | memoryview) -> None:
        """Takes sealed bytes that came from the socket."""
        self._incoming.write(sealed)

    def receive_eof(self) -> None:
        """Takes the end of the socket: to read on behind all that came is an error now, unless the peer had
        finished.
        """
        self._incoming.write_eof()

    def to_send(self) -> bytes:
        """Returns the sealed bytes that must go to the socket; empty when there are none."""
        return self._outgoing.read() if self._outgoing.pending else b""

    # Public - plain bytes

    def handshake(self) -> bool:
        """Goes a step further in the handshake, and returns whether it is over.

        Raises:
            ssl.SSLError: there will be none. `to_send` has the alert that tells the other side.
        """
        try:
            self.connection.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.ready = True
        return True

    def seal(self, data: bytes | bytearray | memoryview) -> None:
        """Seals bytes for `to_send`.

        Raises:
            ssl.SSLError: the connection is broken.
        """
        view = memoryview(data)
        while view:
            view = view[self.connection.write(view) :]

    def open(self) -> bytes:
        """Returns the plain bytes of one record; empty when more must arrive first, or the peer has finished.

        Raises:
            ssl.SSLError: it was tampered with, or cut.
        """
        return self._early.popleft() if self._early else self._read()

    def open_into(self, room: memoryview) -> int:
        """Opens a record into a buffer, or as much as there is room for, and returns how many bytes: 0 as
        `open` says.

        Raises:
            ssl.SSLError: it was tampered with, or cut.
        """
        if self._early:
            data = self._early.popleft()
            count = min(len(data), len(room))
            room[:count] = data[:count]
            if count < len(data):
                self._early.appendleft(data[count:])
            return count
        if self.peer_finished:
            return 0
        try:
            # The stubs do not know that the number is returned when there is a buffer.
            count = int(self.connection.read(len(room), room))
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLZeroReturnError:
            count = 0
        self.peer_finished = count == 0
        return count

    def finish(self) -> None:
        """Ends our direction: `close_notify`, behind all that was sealed. What the other side says can still be opened.

        Raises:
            ssl.SSLError: what had come already was tampered with, or cut.
        """
        try:
            # OpenSSL's shutdown would throw away what arrived already.
            while data := self._read():
                self._early.append(data)
        finally:
            # It wants the peer's close_notify at once, which comes when it comes; ours is made.
            with suppress(ssl.SSLError):
                self.connection.unwrap()

    def forget(self) -> None:
        """Forgets what was opened and not asked for: nobody reads any more."""
        self._early.clear()

    # Internal

    def _read(self) -> bytes:
        if self.peer_finished:
            return b""
        try:
            data = self.connection.read(READ_BYTES)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            data = b""
        self.peer_finished = not data
        return data
