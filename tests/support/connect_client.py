"""A client of the CONNECT front end, with blocking sockets: what it returns is a plain connection to the target."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

HEAD_LIMIT_BYTES = 16 * 1024


class ConnectRefused(Exception):
    """The front end answered something else than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


def connect_through(
    proxy: Path | tuple[str, int],
    target: str,
    *,
    tls: ssl.SSLContext | None = None,
    glued: bytes = b"",
    headers: str = "",
    timeout_s: float = 15.0,
) -> socket.socket:
    """Open `target` (`box-7:22`) through the front end at `proxy`: a unix socket, or an address.

    Args:
        glued: Bytes for the target that leave in the same write as the head.
        headers: More header lines, each ending in CRLF.
        timeout_s: Stays as the socket's time-out.

    Raises:
        ConnectRefused: the answer is not 200.
    """
    sock = socket.socket(socket.AF_UNIX if isinstance(proxy, Path) else socket.AF_INET)
    sock.settimeout(timeout_s)
    try:
        sock.connect(str(proxy) if isinstance(proxy, Path) else proxy)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="127.0.0.1")
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n".encode() + glued)
        status, reason = _read_head(sock)
        if status != 200:
            raise ConnectRefused(status, reason)
    except BaseException:
        sock.close()
        raise
    return sock


def _read_head(sock: socket.socket) -> tuple[int, str]:
    # Byte by byte: what follows the head is the target's and must stay in the socket.
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte or len(head) > HEAD_LIMIT_BYTES:
            raise ConnectionError(f"no whole answer to CONNECT: {head!r}")
        head += byte
    version_and_status, _, reason = head.split(b"\r\n", 1)[0].decode().partition(" ")
    assert version_and_status.startswith("HTTP/1.")
    status, _, reason = reason.partition(" ")
    return int(status), reason


def ends_in_reset(sock: socket.socket) -> bool:
    """Read on to the end: whether it is a reset rather than a clean end."""
    with contextlib.suppress(TimeoutError):
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            return True
        return False
    raise AssertionError("the connection did not end at all")
