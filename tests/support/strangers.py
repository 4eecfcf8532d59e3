"""Whoever connects to a server and does not go on: silent, with the first byte of a handshake, or behind one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psutil

from tests.support.waits import scaled_s

T = TypeVar("T")

HELLO = b"\x16"
"""The first byte of a TLS handshake."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""The beginning of HTTP/2 by a client: its preface, and settings that change nothing (RFC 9113 3.4)."""
MESSAGE_BYTES = 1024 * 1024
_FRAME_BYTES = 16 * 1024
_DATA, _HEADERS, _SETTINGS, _GOAWAY, _WINDOW_UPDATE = 0, 1, 4, 7, 8
_ACK = 1


def knock(address: tuple[str, int], first: bytes = b"", source: str = "") -> socket.socket:
    """A connection on which nothing but `first` is said; from the address `source`, unless that is empty."""
    sock = socket.create_connection(address, scaled_s(10), source_address=(source, 0) if source else None)
    sock.sendall(first)
    return sock


@contextlib.contextmanager
def crowd(
    address: tuple[str, int], count: int, first: bytes = b"", source: str = "", per_s: float = 0
) -> Iterator[list[socket.socket]]:
    """So many of them at once. `per_s`: how many come in a second at most; 0: as fast as this machine goes."""
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        came = []
        for number in range(count):
            if per_s:
                time.sleep(max(0.0, began_s + number / per_s - time.monotonic()))
            came.append(stack.enter_context(knock(address, first, source)))
        yield came


def handshaken(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection that has shaken hands and begun HTTP/2, and makes no call.

    Raises:
        OSError: the server did not want it.
    """
    sock = context.wrap_socket(knock(address), server_hostname=address[0])
    try:
        sock.sendall(PREFACE)
    except OSError:
        sock.close()
        raise
    return sock


def accepted(make: Callable[[int], T], count: int) -> list[T]:
    """As many of so many connections, each made with its number, as the server wants to have."""

    def one(number: int) -> list[T]:
        with contextlib.suppress(OSError):
            return [make(number)]
        return []

    with ThreadPoolExecutor(8) as pool:
        return [made for some in pool.map(one, range(count)) for made in some]


class UnfinishedCalls:
    """A connection with calls of which each sends all of its message but the last byte, as far as the server lets it.

    HTTP/2 is written by hand: a library would say that a stream is closed, and stop.
    """

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, path: str, calls: int) -> None:
        """
        Raises:
            OSError: the server did not want the connection.
        """
        self.sent_bytes = 0
        self._sock = handshaken(address, context)
        self._authority, self._path = f"{address[0]}:{address[1]}".encode(), path.encode()
        self._window = 65_535
        streams = [2 * index + 1 for index in range(calls)]
        head = struct.pack("!BI", 0, MESSAGE_BYTES)
        with contextlib.suppress(OSError):
            for stream in streams:
                self._frame(_HEADERS, 4, stream, self._block())
            for stream in streams:
                self._flow(stream, head + bytes(MESSAGE_BYTES - 1))

    def close(self) -> None:
        self._sock.close()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._sock.sendall(struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload)

    def _block(self) -> bytes:
        """The headers of a call, each a literal without indexing (RFC 7541 6.2.2)."""
        headers = (
            (b":method", b"POST"), (b":scheme", b"https"), (b":path", self._path), (b":authority", self._authority),
            (b"te", b"trailers"), (b"content-type", b"application/grpc"),
        )  # fmt: skip
        return b"".join(bytes([0, len(name)]) + name + bytes([len(value)]) + value for name, value in headers)

    def _flow(self, stream: int, data: bytes) -> None:
        while data:
            self._read(wait=self._window < _FRAME_BYTES)
            cut, data = data[:_FRAME_BYTES], data[_FRAME_BYTES:]
            self._frame(_DATA, 0, stream, cut)
            self._window -= len(cut)
            self.sent_bytes += len(cut)

    def _read(self, *, wait: bool) -> None:
        """Takes what the server says; opens the window of the connection, which all calls share."""
        while wait or self._sock.pending():
            head = self._exactly(9)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big")
            payload = self._exactly(int.from_bytes(head[:3], "big"))
            if kind == _WINDOW_UPDATE and stream == 0:
                self._window += int.from_bytes(payload, "big")
                wait = False
            elif kind == _SETTINGS and not flags & _ACK:
                self._frame(_SETTINGS, _ACK, 0, b"")
            elif kind == _GOAWAY:
                raise ConnectionError("the server goes away")

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            if not (piece := self._sock.recv(count - len(got))):
                raise ConnectionError("closed")
            got += piece
        return got


class Growth:
    """How much more memory a process has than at the start, at the most of all looks."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self._before = self.process.memory_info().rss
        self.most_mb = 0.0

    def look(self) -> float:
        """The growth now, in MB."""
        now_mb = (self.process.memory_info().rss - self._before) / 1e6
        self.most_mb = max(self.most_mb, now_mb)
        return now_mb

    def watch(self, seconds: float) -> None:
        """Looks for a while: what is held is the most when it is held for long."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.look()
            time.sleep(0.05)


def open_at(process: psutil.Process, port: int) -> int:
    """How many connections the process has at one of its ports."""
    mine: Sequence[object] = [
        one for one in process.net_connections("tcp") if one.laddr.port == port and one.status != psutil.CONN_LISTEN
    ]
    return len(mine)
