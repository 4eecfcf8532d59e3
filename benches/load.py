"""What clients do: connect, move bytes, read a list of times."""

from __future__ import annotations

import socket
import time

CHUNK_BYTES = 1024 * 1024
MESSAGE = bytes(64)


def dial(port: int) -> socket.socket:
    """A connection to a port of this machine."""
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def download(port: int, size_bytes: int) -> float:
    """Take bytes from a source; returns MB/s."""
    with dial(port) as sock:
        sock.sendall(b"%d\n" % size_bytes)
        buffer = bytearray(CHUNK_BYTES)
        received = 0
        start = time.perf_counter()
        while received < size_bytes:
            count = sock.recv_into(buffer)
            if not count:
                raise RuntimeError(f"ended after {received} of {size_bytes} bytes")
            received += count
        return size_bytes / (time.perf_counter() - start) / 1e6


def upload(port: int, size_bytes: int) -> float:
    """Give bytes to a sink, until it says that it has them all; returns MB/s."""
    with dial(port) as sock:
        chunk = memoryview(bytes(CHUNK_BYTES))
        start = time.perf_counter()
        left = size_bytes
        while left > 0:
            left -= sock.send(chunk[: min(left, CHUNK_BYTES)])
        sock.shutdown(socket.SHUT_WR)
        if int(sock.makefile("rb").readline()) != size_bytes:
            raise RuntimeError("bytes were lost")
        return size_bytes / (time.perf_counter() - start) / 1e6


def percentile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


def lost() -> int:
    """Where no bytes came."""
    raise RuntimeError("the connection ended")
