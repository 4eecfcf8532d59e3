"""TCP services at the far end, one for each way that connections behave and misbehave.

Each runs in threads with blocking sockets, in this process (`Target`) or in one of its own, for a namespace:
`python -m tests.support.targets echo banner ...` prints a JSON object of their ports and ends with its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from tests.support.relay_pipe import reset_socket

ROOT = Path(__file__).parent.parent.parent
BANNER = b"SSH-2.0-target\r\n"
HELLO = b"hello from behind the firewall\n"
BLOCK_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024


def pattern(seed: int, size_bytes: int) -> Iterator[bytes]:
    """`size_bytes` that differ from offset to offset, so that nothing can be lost, doubled or swapped unseen."""
    block = hashlib.shake_256(seed.to_bytes(8, "big")).digest(BLOCK_BYTES)
    for offset in range(0, size_bytes, BLOCK_BYTES):
        yield (offset.to_bytes(8, "big") + block[8:])[: size_bytes - offset]


def pattern_digest(seed: int, size_bytes: int) -> str:
    digest = hashlib.blake2b()
    for block in pattern(seed, size_bytes):
        digest.update(block)
    return digest.hexdigest()


def send_pattern(sock: socket.socket, seed: int, size_bytes: int) -> None:
    for block in pattern(seed, size_bytes):
        sock.sendall(block)


def receive_digest(sock: socket.socket) -> tuple[int, str]:
    """Read to the end: how many bytes, and their digest."""
    digest = hashlib.blake2b()
    total = 0
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    while count := sock.recv_into(buffer):
        digest.update(view[:count])
        total += count
    return total, digest.hexdigest()


def _line(sock: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError("the client left before its first line was whole")
        line += byte
    return line.decode().strip()


# What each does with a connection, until it returns: then the connection is closed, which sends FIN.


def echo(sock: socket.socket) -> None:
    """Send everything back at once, and end when the client has ended."""
    while data := sock.recv(CHUNK_BYTES):
        sock.sendall(data)


def late_echo(sock: socket.socket) -> None:
    """Take everything until the client's FIN, then send it back: what a half-close is for."""
    received = b""
    while data := sock.recv(CHUNK_BYTES):
        received += data
    sock.sendall(received)


def banner(sock: socket.socket) -> None:
    """Speak first, as ssh and SMTP do, then echo."""
    sock.sendall(BANNER)
    echo(sock)


def count(sock: socket.socket) -> tuple[int, str]:
    """Take everything until the client's FIN, then answer how many bytes and their digest, as a line of JSON."""
    counted = receive_digest(sock)
    with contextlib.suppress(ConnectionError):
        sock.sendall(json.dumps(counted).encode() + b"\n")
    return counted


def source(sock: socket.socket) -> None:
    """Read a line `SEED SIZE`, and send that pattern."""
    seed, size_bytes = map(int, _line(sock).split())
    send_pattern(sock, seed, size_bytes)


def flood(sock: socket.socket) -> None:
    """Send for as long as the client takes it."""
    while True:
        sock.sendall(bytes(CHUNK_BYTES))


def stalled(sock: socket.socket) -> None:
    """Never read."""
    _wait_for_close(sock)


def greet_and_reset(sock: socket.socket) -> None:
    """Wait for a byte, send one, wait for another, then reset."""
    if sock.recv(1):
        sock.sendall(b"!")
        sock.recv(1)
    reset_socket(sock)


def greet_and_close(sock: socket.socket) -> None:
    """Send a line and end."""
    sock.sendall(b"bye\n")


def web(sock: socket.socket) -> None:
    """Answer one HTTP request."""
    if sock.recv(CHUNK_BYTES):
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 31\r\n\r\nhello from behind the firewall\n"
        )


def slow(sock: socket.socket) -> None:
    """Read a little at a time: about 1 MB/s."""
    while sock.recv(10_000):
        time.sleep(0.01)


def _wait_for_close(sock: socket.socket) -> None:
    # Only an error or a hang-up wakes this poll: pending bytes do not, and they must stay unread.
    poll = select.poll()
    poll.register(sock, 0)
    poll.poll()
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


BEHAVIOURS: dict[str, Callable[[socket.socket], tuple[int, str] | None]] = {
    "echo": echo,
    "late-echo": late_echo,
    "banner": banner,
    "count": count,
    "source": source,
    "flood": flood,
    "stalled": stalled,
    "reset": greet_and_reset,
    "close": greet_and_close,
    "web": web,
    "slow": slow,
}


class Target:
    """One service. Use as a context manager."""

    def __init__(self, behaviour: str, host: str = "127.0.0.1", *, receive_buffer_bytes: int = 0) -> None:
        """`receive_buffer_bytes` bounds what the kernel takes for a service that does not read; 0 is its default."""
        self.endings: list[str] = []
        """How each connection ended: `done`, or the error its service met (`ConnectionResetError`)."""
        self.counted: list[tuple[int, str]] = []
        """For `count`: the bytes and digest of each connection that ended cleanly."""
        self.accepted = 0
        self._serve = BEHAVIOURS[behaviour]
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer_bytes:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._listener.bind((host, 0))
        self._listener.listen(512)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._acceptor = threading.Thread(target=self._accept, name=f"target {behaviour}", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def open(self) -> int:
        """How many connections are being served."""
        return len(self._open)

    def stop(self) -> None:
        """Reset what is open and end all threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for sock in left:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._handle, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, sock: socket.socket) -> None:
        ending = "done"
        try:
            if counted := self._serve(sock):
                self.counted.append(counted)
        except OSError as error:
            ending = type(error).__name__
        with self._lock:
            self._open.discard(sock)
        sock.close()
        self.endings.append(ending)


class TargetProcess:
    """Several services in one process of their own, perhaps in a namespace. Use as a context manager."""

    def __init__(self, behaviours: Sequence[str], *, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """`prefix` comes before the command: what enters a namespace."""
        argv = [*prefix, sys.executable, "-m", "tests.support.targets", "--host", host, *behaviours]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the targets ended with exit code {self._process.wait()}")
        self.ports: dict[str, int] = json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def refusing_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, so that it refuses."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port on loopback that answers no SYN: its listener's queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="targets")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("behaviours", nargs="+", choices=BEHAVIOURS)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        served = {name: stack.enter_context(Target(name, options.host)) for name in options.behaviours}
        print(json.dumps({name: target.port for name, target in served.items()}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
