"""Clients that open, exchange a few bytes and close, again and again, each in a thread: who was refused, who waited."""

from __future__ import annotations

import collections
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

PATIENCE_S = 30.0
"""Of each client, for each of its steps."""
PAUSE_S = 0.5
"""Between two calls of a client: two cores serve a hundred of them then, and start a server beside it."""

Call = Callable[[], None]
"""Opens, exchanges, closes. Whatever it raises is a refusal."""


class Callers:
    """Use as a context manager; the figures are whole after it."""

    def __init__(self, calls: Mapping[str, tuple[Call, int]]) -> None:
        """`calls`: by kind, what a client does, and how many clients do it."""
        self.refusals: list[str] = []
        self.count: collections.Counter[str] = collections.Counter()
        """Calls that went well, by kind."""
        self.longest_s: dict[str, float] = dict.fromkeys(calls, 0.0)
        """The longest that a call took, by kind."""
        self._leave = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(kind, call), daemon=True)
            for kind, (call, clients) in calls.items()
            for _ in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)

    def summary(self) -> str:
        """Calls and the longest one, by kind."""
        return ", ".join(
            f"{kind}: {self.count[kind]} calls, {longest:.1f} s" for kind, longest in self.longest_s.items()
        )

    def _run(self, kind: str, call: Call) -> None:
        while not self._leave.wait(PAUSE_S):
            began_s = time.monotonic()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - all of them are findings
                with self._lock:
                    self.refusals.append(f"{kind} after {time.monotonic() - began_s:.2f} s: {error!r}")
            else:
                with self._lock:
                    self.count[kind] += 1
                    self.longest_s[kind] = max(self.longest_s[kind], time.monotonic() - began_s)


def echoed(sock: socket.socket) -> None:
    """Exchange four bytes and close."""
    with sock:
        sock.sendall(b"ping")
        received = b""
        while len(received) < 4:
            data = sock.recv(4 - len(received))
            if not data:
                raise ConnectionError(f"the end after {received!r}")
            received += data


def by_socks(port: int, token: str, target_port: int, agent: str) -> socket.socket:
    """Open `127.0.0.1:target_port` at an agent through the SOCKS front end."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    try:
        name = f"{agent}.longline".encode()
        sock.sendall(b"\x05\x01\x02")
        _expect(sock, b"\x05\x02")
        sock.sendall(b"\x01" + _counted(name) + _counted(token.encode()))
        _expect(sock, b"\x01\x00")
        sock.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + target_port.to_bytes(2))
        _expect(sock, b"\x05\x00\x00\x01" + bytes(6))
    except BaseException:
        sock.close()
        raise
    return sock


def lists_nodes(port: int, tls: ssl.SSLContext) -> None:
    """One request to the fleet API, on a connection of its own."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=tls)
    try:
        nodes_of(connection)
    finally:
        connection.close()


def nodes_of(connection: http.client.HTTPSConnection) -> None:
    """Ask for the nodes, and read the whole answer."""
    connection.request("GET", "/api/v1/nodes")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise ConnectionError(f"{answer.status}: {body[:200]!r}")


def _counted(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _expect(sock: socket.socket, wanted: bytes) -> None:
    received = b""
    while len(received) < len(wanted):
        data = sock.recv(len(wanted) - len(received))
        if not data:
            raise ConnectionError(f"the end after {received!r}")
        received += data
    if received != wanted:
        raise ConnectionError(f"refused: {received!r}")
