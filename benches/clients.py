"""Clients in processes of their own, so that no interpreter is shared by those that load and the one that times.

All of a probe work in one window of the monotonic clock, which the whole machine shares: what happens before it is for
warming up, and the daemons' CPU time is read at its two ends.
`python -m benches.clients` takes calls as lines of JSON from standard input and ends with it.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from benches.load import CHUNK_BYTES, MESSAGE, dial, lost, percentile
from tests.support.relay_pipe import reset_socket

WARM_UP_S = 0.3
ENDLESS_BYTES = 1 << 50


# What a client does


def download(port: int, start: float, end: float) -> float:
    """Take what a source has; returns the bytes of the window."""
    buffer, received = bytearray(CHUNK_BYTES), 0
    with dial(port) as sock:
        sock.sendall(b"%d\n" % ENDLESS_BYTES)
        while (now := time.monotonic()) < end:
            count = sock.recv_into(buffer) or lost()
            received += count if now >= start else 0
        reset_socket(sock)  # an end would let a tunnel take what still comes, beside what is measured next
    return received


def upload(port: int, start: float, end: float) -> float:
    """Give to a sink, and hear that it has everything; returns the bytes that were taken in the window."""
    chunk, sent, before = bytes(CHUNK_BYTES), 0, 0
    with dial(port) as sock:
        while (now := time.monotonic()) < end:
            before = sent if now < start else before
            sent += sock.send(chunk)
        sock.shutdown(socket.SHUT_WR)
        if int(sock.makefile("rb").readline()) != sent:
            raise RuntimeError("bytes were lost")
    return sent - before


def echo(port: int, start: float, end: float, pause_s: float = 0.0) -> tuple[float, float]:
    """Round trips of 64 bytes, one after the other; returns p50 and p99 of those in the window, in ms."""
    times: list[float] = []
    with dial(port) as sock:
        while (sent_at := time.monotonic()) < end:
            sock.sendall(MESSAGE)
            got = 0
            while got < len(MESSAGE):
                got += len(sock.recv(len(MESSAGE) - got)) or lost()
            if sent_at >= start or not times:  # one at least, however slow
                times.append((time.monotonic() - sent_at) * 1e3)
            if pause_s:
                time.sleep(pause_s)
    times.sort()
    return percentile(times, 0.5), percentile(times, 0.99)


def opens(port: int, width: int, start: float, end: float) -> float:
    """Open, exchange a byte and close, `width` of them at once; returns how many a second in the window."""
    done = 0
    waiting: dict[int, socket.socket] = {}
    poll = select.epoll()

    def begin() -> None:
        # A connect on loopback is over at once: the kernel answers it.
        sock = dial(port)
        sock.sendall(b"x")
        waiting[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)

    for _ in range(width):
        begin()
    while waiting:
        for number, _events in poll.poll():
            with waiting.pop(number) as sock:
                sock.recv(1) or lost()
                poll.unregister(sock)
            now = time.monotonic()
            done += start <= now < end
            if now < end:
                begin()
    poll.close()
    return done / (end - start)


WORK: dict[str, Callable[..., Any]] = {each.__name__: each for each in (download, upload, echo, opens)}


# How it is told


@dataclass(frozen=True, slots=True)
class Window:
    """When it counts, in seconds of the monotonic clock."""

    start: float
    end: float

    @classmethod
    def of(cls, seconds: float) -> Window:
        start = time.monotonic() + WARM_UP_S
        return cls(start, start + seconds)


class Client:
    """A process; one call at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benches.clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, work: str, port: int, window: Window, **more: float) -> None:
        """Call one of the functions above."""
        assert self.process.stdin is not None
        arguments = {"port": port, "start": window.start, "end": window.end, **more}
        self.process.stdin.write(json.dumps([work, arguments]) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        """What it returned."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client ended with exit code {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)


class Clients:
    """Several. Use as a context manager."""

    def __init__(self, count: int) -> None:
        with ExitStack() as stack:
            self._all = [Client() for _ in range(count)]
            for client in self._all:
                stack.callback(client.close)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def __getitem__(self, place: int | slice) -> list[Client]:
        return self._all[place] if isinstance(place, slice) else [self._all[place]]


def main() -> None:
    """Do as told."""
    for line in sys.stdin:
        work, arguments = json.loads(line)
        print(json.dumps(WORK[work](**arguments)), flush=True)


if __name__ == "__main__":
    main()
