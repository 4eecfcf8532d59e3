"""`kubectl port-forward` to a web server, and what that answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports

READ_BYTES = 1024 * 1024


@contextmanager
def forwarding(user: KubectlUser, pod: str, to: int = 8080, namespace: str = "default") -> Iterator[int]:
    """A port-forward to a pod's port; its port here."""
    (port,) = free_ports(1)
    with user.follow("port-forward", "-n", namespace, pod, f"{port}:{to}") as forward:
        assert forward.stdout is not None
        while "Forwarding from 127.0.0.1" not in (line := forward.stdout.readline()):
            assert line, "port-forward ended"
        yield port


def get(port: int, path: str = "/") -> bytes:
    """The body of what a web server on loopback answers."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = bytearray()
        while data := sock.recv(READ_BYTES):
            answer += data
    return bytes(answer).partition(b"\r\n\r\n")[2]
