"""`kubectl port-forward` to a plain box, with kubectls old and new: SPDY up to 1.30, then inside a WebSocket."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.kubectls import kubectl_of
from tests.support.port_forward import forwarding
from tests.support.site import Site, site
from tests.support.targets import pattern
from tests.support.tunnel import BOX, exchange, read_to_end

MIB = 1024 * 1024
VERSIONS = ["1.28", "1.30", "1.31", "1.34", "1.37"]


@pytest.fixture(scope="module")
def made() -> Iterator[Site]:
    with site(["echo", "late-echo", "source", "count"]) as made:
        yield made


@pytest.fixture(params=VERSIONS)
def user(request: pytest.FixtureRequest, made: Site) -> Iterator[Site]:
    """The site, by way of one of the versions."""
    made.program = kubectl_of(request.param)
    yield made
    made.program = None


def say(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def test_bytes_both_ways_and_half_close(user: Site) -> None:
    """The target answers only when it has seen the end of what it is sent."""
    said = b"".join(pattern(7, 8 * MIB))
    with forwarding(user, BOX, user.ports["late-echo"]) as port:
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sender = threading.Thread(target=say, args=(sock, said))
            sender.start()
            heard = read_to_end(sock)
            sender.join()
    assert hashlib.sha256(heard).digest() == hashlib.sha256(said).digest()


def test_a_long_download(user: Site) -> None:
    with forwarding(user, BOX, user.ports["source"]) as port:
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sock.sendall(b"3 20000000\n")
            heard = read_to_end(sock)
    assert hashlib.sha256(heard).digest() == hashlib.sha256(b"".join(pattern(3, 20_000_000))).digest()


def test_many_connections_at_once(user: Site) -> None:
    with forwarding(user, BOX, user.ports["echo"]) as port:
        socks = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(50)]
        for number, sock in enumerate(socks):
            assert exchange(sock, b"number %3d" % number) == b"number %3d" % number
        for number, sock in enumerate(reversed(socks)):
            assert exchange(sock, b"again %3d" % number) == b"again %3d" % number
            sock.close()


def test_the_error_is_told_as_a_kubelet_tells_it(user: Site) -> None:
    with user.follow("port-forward", BOX, ":1") as forward:
        assert forward.stdout is not None
        port = int(forward.stdout.readline().split(" -> ")[0].rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 30).close()
        told = ""
        while "n error occurred forwarding" not in told:
            told = forward.stdout.readline()
            assert told
    assert f"error forwarding port 1 to pod {BOX}" in told
    assert "not allowed by this box's [[allow]] rules" in told
