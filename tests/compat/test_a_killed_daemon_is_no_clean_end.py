"""`kill -9` of a daemon in the middle of everything: no client and no target takes what is missing for an end.

A kernel ends the TCP connections of a dead process with FIN, which reads as "that was all", unless the process asked
for a reset beforehand. Some forty transfers run at a time, either way, while server and agent are killed in turn; each
ends whole, or in an error.
"""

from __future__ import annotations

import collections
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.tunnel import BOX, Tunnel, tunnel, wait_until
from tests.support.waits import scaled_s

SIZE_BYTES = 12_400_000
TRANSFERS = 40
KILLS = 6
INTERRUPTED = TRANSFERS * KILLS // 4
"""So many at least, for the test to say anything."""
BLOCK = bytes(256 * 1024)


class Toll:
    """How transfers ended, by whoever saw it; from many threads."""

    def __init__(self) -> None:
        self.whole = 0
        self.interrupted = 0
        self.short: list[str] = []
        """Ends that looked clean and were not."""
        self._lock = threading.Lock()

    def ended(self, who: str, moved_bytes: int) -> None:
        with self._lock:
            if moved_bytes == SIZE_BYTES:
                self.whole += 1
            else:
                self.short.append(f"{who}: {moved_bytes} of {SIZE_BYTES}")

    def more(self, count: int) -> Callable[[], bool]:
        """Asks whether so many have ended whole since now."""
        enough = self.whole + count
        return lambda: self.whole >= enough

    def broke(self) -> None:
        with self._lock:
            self.interrupted += 1


class Target:
    """Sends SIZE_BYTES to whoever says `d`, and counts what it gets from whoever says `u`."""

    def __init__(self, toll: Toll) -> None:
        self._toll = toll
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                match sock.recv(1):
                    case b"d":
                        send_all(sock)
                    case b"u":
                        self._toll.ended("target of an upload", receive_all(sock))
                    case b"":
                        self._toll.ended("target that was just connected", 0)
            except OSError:
                self._toll.broke()


def send_all(sock: socket.socket) -> None:
    for offset in range(0, SIZE_BYTES, len(BLOCK)):
        sock.sendall(BLOCK[: SIZE_BYTES - offset])


def receive_all(sock: socket.socket) -> int:
    moved, buffer = 0, bytearray(len(BLOCK))
    while count := sock.recv_into(buffer):
        moved += count
    return moved


class Clients:
    """Transfers that follow each other, TRANSFERS of them at a time."""

    def __init__(self, port: int, toll: Toll, seed: int) -> None:
        self._port = port
        self._toll = toll
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed + number),), daemon=True)
            for number in range(TRANSFERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(scaled_s(60))
            assert not thread.is_alive()

    def _run(self, choice: random.Random) -> None:
        while not self._stopping.is_set():
            try:
                sock = socket.create_connection(("127.0.0.1", self._port), 60)
            except OSError:
                time.sleep(0.02)  # the server is away
                continue
            with sock:
                try:
                    choice.choice((self._download, self._download_behind_an_end, self._upload))(sock)
                except OSError:
                    self._toll.broke()

    def _download(self, sock: socket.socket) -> None:
        sock.sendall(b"d")
        self._toll.ended("client of a download", receive_all(sock))

    def _download_behind_an_end(self, sock: socket.socket) -> None:
        sock.sendall(b"d")
        sock.shutdown(socket.SHUT_WR)
        self._toll.ended("client that had finished", receive_all(sock))

    def _upload(self, sock: socket.socket) -> None:
        sock.sendall(b"u")
        send_all(sock)
        sock.shutdown(socket.SHUT_WR)
        receive_all(sock)


@contextmanager
def busy_tunnel(toll: Toll, seed: int) -> Iterator[Tunnel]:
    target = Target(toll)
    with tunnel([], allow=[f"127.0.0.1:{target.port}"]) as made:
        port = made.cluster.forward(BOX, f"127.0.0.1:{target.port}")
        made.cluster.server.stop()
        made.cluster.start()
        wait_until(lambda: "agent connected" in made.cluster.server.log_text().rpartition('"ready"')[2], "the box")
        clients = Clients(port, toll, seed)
        try:
            yield made
        finally:
            clients.stop()
            target.close()


def kill_in_turn(made: Tunnel, toll: Toll, kills: int, choice: random.Random) -> None:
    for number in range(kills):
        more = toll.more(TRANSFERS // 4)
        wait_until(more, "transfers again", 60)
        time.sleep(choice.uniform(0.0, 0.5))  # anywhere within a transfer
        victim = (made.cluster.server, made.box.agent)[number % 2]
        victim.kill()
        victim.start().wait_ready(30)


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_no_end_is_short_however_a_daemon_dies() -> None:
    toll, seed = Toll(), random.randrange(1 << 30)
    with busy_tunnel(toll, seed) as made:
        kill_in_turn(made, toll, KILLS, random.Random(seed))
    assert collections.Counter(toll.short) == {}, f"seed {seed}"
    assert toll.interrupted >= INTERRUPTED
    assert toll.whole >= TRANSFERS
