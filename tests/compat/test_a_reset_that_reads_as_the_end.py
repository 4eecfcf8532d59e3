"""A target resets in the middle of its answer: every front end says so, each as far as its kind of socket can."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.ports import free_ports
from tests.support.tunnel import BOX, Tunnel, read_exactly, tunnel
from tests.support.waits import Deadline

(SOCKS_PORT,) = free_ports(1)
KEY_S = 0.02


@pytest.fixture(scope="module")
def made() -> Iterator[Tunnel]:
    with tunnel(["reset"], server={"socks": {"listen": f"127.0.0.1:{SOCKS_PORT}"}}) as one:
        yield one


def greeted(sock: socket.socket) -> socket.socket:
    """The target has answered, and resets with the next byte."""
    sock.sendall(b"a")
    assert sock.recv(1) == b"!"
    return sock


def dial_socks(made: Tunnel) -> socket.socket:
    """As a user whose token the server may not have seen yet."""
    token = made.cluster.user_token("ann")
    deadline = Deadline(10)
    while not (sock := signed_in(token.strip().encode())):
        assert not deadline.passed()
    name = BOX.encode()
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + made.targets["reset"].port.to_bytes(2))
    assert read_exactly(sock, 10)[:2] == b"\x05\x00"
    return sock


def signed_in(password: bytes) -> socket.socket | None:
    sock = socket.create_connection(("127.0.0.1", SOCKS_PORT), 10)
    sock.sendall(b"\x05\x01\x02" + b"\x01\x03ann" + bytes([len(password)]) + password)
    if read_exactly(sock, 4) == b"\x05\x02\x01\x00":
        return sock
    sock.close()
    return None


@pytest.mark.parametrize("way", ["forward", "connect over TLS", "socks"])
def test_over_tcp_it_is_a_reset(made: Tunnel, way: str) -> None:
    with {
        "forward": lambda: made.dial("reset"),
        "connect over TLS": lambda: made.cluster.dial_tls(f"{BOX}:{made.targets['reset'].port}"),
        "socks": lambda: dial_socks(made),
    }[way]() as sock:
        greeted(sock).sendall(b"b")
        # The socket itself: Python's TLS makes an end of what the kernel calls a reset.
        with socket.socket(fileno=os.dup(sock.fileno())) as kernel:
            kernel.settimeout(10)
            with pytest.raises(ConnectionResetError):
                kernel.recv(1)


def test_on_the_unix_socket_who_goes_on_talking_is_told(made: Tunnel) -> None:
    """Someone who types: each key is read at once, so that none lies unread by chance when the reset comes."""
    told = sum(is_told(made) for _ in range(10))
    assert told >= 3  # all of them, unless this process gets no processor for 0.1 s


def is_told(made: Tunnel) -> bool:
    with made.connect("reset") as sock:
        greeted(sock)
        with contextlib.suppress(BrokenPipeError):
            while True:
                sock.sendall(b"b")
                time.sleep(KEY_S)
        try:
            return sock.recv(1) != b""
        except ConnectionResetError:
            return True


def test_on_the_unix_socket_who_only_listens_gets_an_end_and_the_record_the_truth(made: Tunnel) -> None:
    server = made.cluster.server
    before = len(server.log_text())
    with made.connect("reset") as sock:
        greeted(sock).sendall(b"b")
        assert sock.recv(1) == b""
    assert '"frontend":"connect"' in server.wait_for_log('"reason":"connection_reset"', after=before)
