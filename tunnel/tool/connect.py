"""`longline connect`: standard input and output joined to a TCP service at an agent, as ssh's ProxyCommand wants it."""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
from pathlib import Path

from tunnel.tool.wire import PlainWire, TlsWire, Wire

CONNECT_TIMEOUT_S = 30.0
"""The server answers within its own dial_timeout_s, 10 s by default."""
MAX_HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
STDIN, STDOUT = 0, 1
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ?([^\r\n]*)\r\n")


class ConnectFailed(Exception):
    """There is no connection; the text is for the person at the terminal."""


def dial_unix(path: Path) -> tuple[socket.socket, Wire]:
    """To the unix socket of a server on this machine.

    Raises:
        ConnectFailed: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise ConnectFailed(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    return sock, PlainWire()


def dial_tls(address: str, context: ssl.SSLContext) -> tuple[socket.socket, Wire]:
    """To the TLS listener of a server.

    Raises:
        ConnectFailed: it cannot be reached.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit():
        raise ConnectFailed(f"--via {address}: write HOST:PORT, or the path of a unix socket")
    try:
        sock = socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S)
    except OSError as error:
        raise ConnectFailed(f"{address}: {error.strerror or error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, TlsWire(context, host)


def connect(sock: socket.socket, wire: Wire, target: str) -> bytes:
    """Ask for a target; returns what came behind the answer.

    Raises:
        ConnectFailed: it was refused, and why.
    """
    sock.settimeout(CONNECT_TIMEOUT_S)
    head = b""
    try:
        sock.sendall(wire.seal(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()))
        while b"\r\n\r\n" not in head:
            received = sock.recv(CHUNK_BYTES)
            data, _ = wire.open(received)
            sock.sendall(wire.seal(b""))
            head += data
            if not received or len(head) > MAX_HEAD_BYTES:
                raise ConnectFailed("the server's answer is not that of a CONNECT proxy")
    except TimeoutError:
        raise ConnectFailed(f"no answer within {CONNECT_TIMEOUT_S:.0f} s") from None
    except ssl.SSLCertVerificationError as error:
        raise ConnectFailed(f"the server's certificate: {error.verify_message}") from error
    except (OSError, ssl.SSLError) as error:
        raise ConnectFailed(f"the server closed the connection: {error.strerror or error}") from error
    status = _STATUS_LINE.match(head)
    if status is None:
        raise ConnectFailed("the server's answer is not that of a CONNECT proxy")
    if status[1] != b"200":
        raise ConnectFailed(status[2].decode("ascii", "replace") or f"refused with status {status[1].decode()}")
    return head.partition(b"\r\n\r\n")[2]


def relay(sock: socket.socket, wire: Wire, early: bytes) -> None:
    """Copy both ways until the other side has ended.

    Raises:
        ConnectFailed: the connection broke: bytes may be missing.
    """
    sock.setblocking(False)
    _write_out(early)
    try:
        _Relay(sock, wire).run()
    except (OSError, ssl.SSLError) as error:
        raise ConnectFailed(f"the connection broke: {error.strerror or error}") from error
    finally:
        sock.close()


class _Relay:
    """Standard input to the socket and the socket to standard output, in one thread."""

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self._sock = sock
        self._wire = wire
        self._unsent = bytearray()
        self._input_open = True
        self._said_end = False

    def run(self) -> None:
        while True:
            readers: list[int | socket.socket] = [self._sock]
            if self._input_open and len(self._unsent) < CHUNK_BYTES:
                readers.append(STDIN)
            # select() and not epoll: standard input may be a file.
            readable, _, _ = select.select(readers, [self._sock] if self._unsent else [], [])
            if STDIN in readable:
                self._read_input()
            if self._sock in readable and self._receive():
                return
            self._send()

    def _read_input(self) -> None:
        data = os.read(STDIN, CHUNK_BYTES)
        self._input_open = bool(data)
        self._unsent += self._wire.seal(data) if data else self._wire.finish()

    def _receive(self) -> bool:
        """True when the other side ended in order."""
        try:
            opened, ended = self._wire.open(self._sock.recv(CHUNK_BYTES))
        except BlockingIOError:
            return False
        _write_out(opened)
        if not ended:
            self._unsent += self._wire.seal(b"") if self._input_open else b""
        return ended

    def _send(self) -> None:
        if self._unsent:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except BlockingIOError:
                return
        if not self._unsent and not self._input_open and not self._said_end:
            self._said_end = True
            if self._wire.plain:
                self._sock.shutdown(socket.SHUT_WR)


def _write_out(data: bytes) -> None:
    while data:
        data = data[os.write(STDOUT, data) :]
