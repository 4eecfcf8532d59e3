"""Asks an address for a page over and over, each time by a new connection, and notes each answer.

`SteadyRequests` runs this file as a program in the network of a node, where it outlives the loss of the node's power.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

PORT = 80
PAUSE_S = 0.005
PATIENCE_S = 3.0
"""How long a connection may take, and each part of its answer."""


class Answer(NamedTuple):
    """What one request got."""

    at_s: float
    """When it began, on the machine's monotonic clock."""
    took_s: float
    page: str
    """The first word of it; empty when the request failed."""
    trouble: str


class SteadyRequests:
    """Call `close` at the end."""

    def __init__(self, network: list[str], address: str, log: Path) -> None:
        """Begin.

        Args:
            network: The words before a command that runs in the node's network.
            address: Of a Service.
            log: Takes the answers.
        """
        from tests.support.processes import Daemon

        self._log = log
        argv = ["/usr/bin/env", sys.executable, __file__, address]
        self._daemon = Daemon("requests", argv, log, prefix=network).start()

    def answers(self, since_s: float = 0.0) -> list[Answer]:
        """Those that began since a moment of `time.monotonic`, as far as they are over."""
        found = []
        for line in self._log.read_text().splitlines():
            at, took, page, trouble = line.split(" ", 3)
            if float(at) >= since_s:
                found.append(Answer(float(at), float(took), page, trouble))
        return found

    def lost(self) -> list[Answer]:
        """Those that failed."""
        answers = self.answers()
        slowest_s = max(one.took_s for one in answers)
        print(f"{len(answers)} requests in {answers[-1].at_s - answers[0].at_s:.1f} s, the slowest {slowest_s:.3f} s")
        return [one for one in answers if not one.page]

    def close(self) -> None:
        self._daemon.kill()
        self._daemon.close()


def main(address: str) -> None:
    """Ask until somebody ends it."""
    while True:
        began_s = time.monotonic()
        try:
            said = f"{_page(address)} "
        except OSError as error:
            said = f" {error}"
        print(f"{began_s:.3f} {time.monotonic() - began_s:.3f} {said}", flush=True)
        time.sleep(PAUSE_S)


def _page(address: str) -> str:
    with socket.create_connection((address, PORT), PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise OSError(f"answered {head[:60]!r}")
    return body.decode().split()[0]


if __name__ == "__main__":
    main(sys.argv[1])
