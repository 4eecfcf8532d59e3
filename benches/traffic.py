"""Copies and keystrokes that run beside something else, and remember what came when."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from benches.load import CHUNK_BYTES, MESSAGE, dial
from tests.support.relay_pipe import reset_socket

KEYSTROKE_S = 0.04
"""Between an echo and the next keystroke."""
LOOK_S = 0.1
"""How often a thread that waits looks whether it is time to end."""
ENDLESS_BYTES = 10**12


class TrafficDied(Exception):
    """A connection that should have lasted did not: what was measured beside it, or of it, is worth nothing."""


class _Beside:
    """A thread that uses a connection until the `with` block ends, which raises TrafficDied when that failed before."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._fault: Exception | None = None
        self._sock = dial(port)
        self._sock.settimeout(LOOK_S)
        self._over = False
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over = True
        self._thread.join()
        reset_socket(self._sock)  # not an end: the source must stop, and what waits in the tunnel is dropped
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise TrafficDied when the connection did not last."""
        if self._fault is not None:
            raise TrafficDied(f"{type(self).__name__.lower()} over port {self._port}: {self._fault}") from self._fault

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as fault:  # noqa: BLE001 - of another thread, where nobody would see it
            self._fault = fault

    def _moved(self, operation: Callable[[], int]) -> int:
        """How many bytes an operation moved; 0 when it is time to end."""
        while not self._over:
            try:
                count = operation()
            except TimeoutError:
                continue
            if not count:
                raise RuntimeError("the connection ended")
            return count
        return 0

    def _run(self) -> None:
        raise NotImplementedError


class Copy(_Beside):
    """An endless copy from a source, or to a sink."""

    def __init__(self, port: int, *, up: bool = False) -> None:
        super().__init__(port)
        self.total = 0
        self._up = up
        self._marks: list[tuple[float, int]] = []
        self._start = time.perf_counter()

    def rate(self, since_s: float, until_s: float) -> float:
        """Bytes per second between two times since the start; waits for them."""
        while (now := time.perf_counter() - self._start) < until_s:
            time.sleep(until_s - now)
        self.check()
        count = sum(size for at, size in list(self._marks) if since_s <= at - self._start < until_s)
        return count / (until_s - since_s)

    def bins(self, bin_s: float, start: float) -> list[float]:
        """Mbit/s in each bin since a time of `time.perf_counter`."""
        marks = [(at, size) for at, size in self._marks if at >= start]
        bins = [0.0] * (int((marks[-1][0] - start) / bin_s) + 1 if marks else 0)
        for at, size in marks:
            bins[int((at - start) / bin_s)] += size * 8 / 1e6 / bin_s
        return [round(one, 3) for one in bins]

    def _run(self) -> None:
        block = memoryview(bytearray(CHUNK_BYTES))
        if not self._up:
            self._sock.sendall(b"%d\n" % ENDLESS_BYTES)
        while count := self._moved(lambda: self._sock.send(block) if self._up else self._sock.recv_into(block)):
            self.total += count
            self._marks.append((time.perf_counter(), count))


class Pings(_Beside):
    """Keystrokes, one after the other's echo."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._start = time.perf_counter()
        self._times: list[tuple[float, float]] = []

    def after(self, start: float) -> list[tuple[float, float]]:
        """When each was sent, in seconds since a time of `time.perf_counter`, and its milliseconds."""
        return [(round(at - start, 3), round(ms, 2)) for at, ms in self._times if at >= start]

    def sorted_ms(self, since_s: float = 0.0) -> list[float]:
        """Round trips from so many seconds after the start."""
        return sorted(ms for at, ms in self._times if at - self._start >= since_s)

    def _run(self) -> None:
        block = bytearray(len(MESSAGE))
        while not self._over:
            start = time.perf_counter()
            self._sock.sendall(MESSAGE)
            left = len(MESSAGE)
            while left > 0:
                count = self._moved(lambda left=left: self._sock.recv_into(block, left))  # type: ignore[misc]
                if not count:
                    return
                left -= count
            self._times.append((start, (time.perf_counter() - start) * 1e3))
            time.sleep(KEYSTROKE_S)


def copy_down(port: int, size_bytes: int) -> float:
    """A whole copy; bytes per second from its first to its last byte."""
    with dial(port) as sock:
        start = time.perf_counter()
        sock.sendall(b"%d\n" % size_bytes)
        block = bytearray(CHUNK_BYTES)
        left = size_bytes
        while left > 0:
            count = sock.recv_into(block)
            if not count:
                raise RuntimeError(f"{left} bytes are missing")
            left -= count
        return size_bytes / (time.perf_counter() - start)


def copy_up(port: int, size_bytes: int) -> float:
    """The same to a sink, until it says that it has all."""
    with dial(port) as sock:
        start = time.perf_counter()
        sock.sendall(bytes(size_bytes))
        sock.shutdown(socket.SHUT_WR)
        if int(sock.makefile("rb").readline()) != size_bytes:
            raise RuntimeError("bytes were lost")
        return size_bytes / (time.perf_counter() - start)
