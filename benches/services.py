"""What is reached through the tunnel while it is measured: a source, a sink and an echo, in a process of their own.

`python -m benches.services` prints its three ports and serves until its standard input ends.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Services:
    """The ports."""

    source: int
    """Takes a line with a number of bytes, and sends so many."""
    sink: int
    """Takes bytes to their end, then answers with their number."""
    echo: int


@contextmanager
def services() -> Iterator[Services]:
    """The process, up."""
    with subprocess.Popen(
        [sys.executable, "-m", "benches.services"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Services(*map(int, process.stdout.readline().split()))
        finally:
            process.stdin.close()
            process.wait(10)


def _source(conn: socket.socket) -> None:
    left = int(conn.makefile("rb", buffering=0).readline())
    chunk = memoryview(bytes(CHUNK_BYTES))
    while left > 0:
        left -= conn.send(chunk[: min(left, CHUNK_BYTES)])
    conn.shutdown(socket.SHUT_WR)
    conn.recv(1)


def _sink(conn: socket.socket) -> None:
    buffer = bytearray(CHUNK_BYTES)
    received = 0
    while count := conn.recv_into(buffer):
        received += count
    conn.sendall(b"%d\n" % received)


def _echo(conn: socket.socket) -> None:
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := conn.recv(65536):
        conn.sendall(data)


def _serve(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    def run(conn: socket.socket) -> None:
        with conn:
            try:
                handle(conn)
            except OSError:
                return

    while True:
        conn, _ = listener.accept()
        threading.Thread(target=run, args=(conn,), daemon=True).start()


def main() -> None:
    """Serve until standard input ends."""
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(3)]
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)
    for listener, handle in zip(listeners, (_source, _sink, _echo), strict=True):
        threading.Thread(target=_serve, args=(listener, handle), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
