"""A peer's process: started, waited for, ended."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benches.load import dial

READY_S = 10.0


class PeerFailed(Exception):
    """A peer did not start; the text has the end of its log."""


@contextmanager
def process(words: list[str], folder: Path) -> Iterator[int]:
    """Its process id; its log is in `folder`."""
    log = folder / f"{len(list(folder.iterdir()))}.log"
    with log.open("wb") as out, subprocess.Popen(words, stdout=out, stderr=out, cwd=folder) as started:
        try:
            yield started.pid
        except PeerFailed as error:
            error.add_note(f"{' '.join(words)}: {log.read_text(errors='replace')[-1000:]}")
            raise
        finally:
            started.terminate()
            started.wait(10)


def wait_listening(port: int, host: str = "127.0.0.1") -> None:
    """Until something listens there."""
    _wait(lambda: socket.create_connection((host, port), 5).close(), f"nothing listens on {host}:{port}")


def wait_echo(port: int) -> None:
    """Until the echo answers through the peer."""

    def ask() -> None:
        with dial(port) as sock:
            sock.settimeout(5)
            sock.sendall(b"x")
            if not sock.recv(1):
                raise ConnectionError

    _wait(ask, f"no echo through port {port}")


def _wait(ask: Callable[[], None], text: str) -> None:
    end = time.monotonic() + READY_S
    while True:
        try:
            return ask()
        except OSError as error:
            if time.monotonic() > end:
                raise PeerFailed(text) from error
            time.sleep(0.05)
