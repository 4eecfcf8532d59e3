"""What is reached through a tunnel while it is measured: a source and a sink in one process, an echo in another.

`python -m benches.services bulk|echo` prints its ports and serves until its standard input ends. The echo is apart so
that its answers do not wait for an interpreter that is busy with a bulk copy.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import uvloop

CHUNK_BYTES = 256 * 1024
BACKLOG = 1024


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
    """Both processes, up."""
    with _process("bulk") as (source, sink), _process("echo") as (echo,):
        yield Services(source, sink, echo)


@contextmanager
def _process(kind: str) -> Iterator[list[int]]:
    words = [sys.executable, "-m", "benches.services", kind]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield [int(word) for word in process.stdout.readline().split()]
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


def _listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)


def _bulk() -> None:
    listeners = [_listen(), _listen()]
    for listener, handle in zip(listeners, (_source, _sink), strict=True):
        threading.Thread(target=_serve, args=(listener, handle), daemon=True).start()
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)
    sys.stdin.read()


class _Echo(asyncio.Protocol):
    """Thousands of connections in one thread."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def _echo() -> None:
    loop = asyncio.get_running_loop()
    listener = _listen()
    async with await loop.create_server(_Echo, sock=listener, backlog=BACKLOG):
        print(listener.getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    if sys.argv[1] == "bulk":
        _bulk()
    else:
        uvloop.run(_echo())


if __name__ == "__main__":
    main()
