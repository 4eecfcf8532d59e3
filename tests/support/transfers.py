"""What runs while a link breaks: checked transfers and an echo, each in a thread, and cuts by their progress."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

from tests.support.relay import Cut
from tests.support.relay_process import RelayProcess
from tests.support.targets import CHUNK_BYTES, pattern, pattern_digest
from tests.support.tunnel import exchange, read_to_end, wait_until


class Transfer:
    """A download from `source` or an upload to `count`. Call `result` for its end."""

    def __init__(self, sock: socket.socket, size_bytes: int, *, upload: bool = False, seed: int = 1) -> None:
        self.moved_bytes = 0
        self._sock = sock
        self._size_bytes = size_bytes
        self._seed = seed
        self._error: BaseException | None = None
        self._digest = ""
        self._thread = threading.Thread(target=self._run, args=(self._upload if upload else self._download,))
        self._thread.daemon = True
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def result(self, timeout_s: float = 60.0) -> None:
        """Wait for the end: it must be clean, with every byte in its place.

        Raises:
            AssertionError: it is not.
        """
        self._thread.join(timeout_s)
        assert self.over, f"the transfer stands still at {self.moved_bytes} of {self._size_bytes} bytes"
        assert self._error is None, f"the transfer broke at {self.moved_bytes} bytes: {self._error!r}"
        assert self.moved_bytes == self._size_bytes
        assert self._digest == pattern_digest(self._seed, self._size_bytes)

    def _run(self, move: Callable[[], None]) -> None:
        try:
            move()
        except BaseException as error:  # noqa: BLE001 - `result` tells
            self._error = error

    def _download(self) -> None:
        self._sock.sendall(f"{self._seed} {self._size_bytes}\n".encode())
        digest = hashlib.blake2b()
        while data := self._sock.recv(CHUNK_BYTES):
            digest.update(data)
            self.moved_bytes += len(data)
        self._digest = digest.hexdigest()

    def _upload(self) -> None:
        for block in pattern(self._seed, self._size_bytes):
            self._sock.sendall(block)
            self.moved_bytes += len(block)
        self._sock.shutdown(socket.SHUT_WR)
        answer = read_to_end(self._sock).decode()
        assert f"[{self._size_bytes}," in answer, f"the target counted {answer or 'nothing'}"
        self._digest = answer.split('"')[1]


class Chatter:
    """A numbered line to the echo target every few milliseconds. Use as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self.lines = 0
        self.slowest_s = 0.0
        self._sock = sock
        self._leave = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: object, *_exc: object) -> None:
        self._leave.set()
        self._thread.join(30)
        if error_type is None:
            assert not self._thread.is_alive(), f"the echo stands still after {self.lines} lines"
            assert self._error is None, f"the echo broke after {self.lines} lines: {self._error!r}"

    def _run(self) -> None:
        try:
            while not self._leave.wait(0.005):
                line = f"line {self.lines}\n".encode()
                start = time.monotonic()
                answer = exchange(self._sock, line)
                assert answer == line, f"{answer!r} for {line!r}"
                self.slowest_s = max(self.slowest_s, time.monotonic() - start)
                self.lines += 1
        except BaseException as error:  # noqa: BLE001 - `__exit__` tells
            self._error = error


def cut_by_progress(link: RelayProcess, transfer: Transfer, cuts: int, size_bytes: int, how: Cut = "rst") -> None:
    """Cut the link each time that it has carried another part of the transfer.

    Raises:
        AssertionError: the transfer ended, or stood still, before the last cut.
    """
    link.cut_after([size_bytes * number // (cuts + 1) for number in range(1, cuts + 1)], how)
    wait_until(lambda: transfer.over or not link.counters()["cuts_ahead"], "progress up to the last cut", 60)
    if left := link.counters()["cuts_ahead"]:
        transfer.result()
        raise AssertionError(f"the transfer was over with {left} of {cuts} cuts ahead")
