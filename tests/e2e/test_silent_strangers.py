"""Thousands of silent connections to users' ports: whoever has business with the server is served, and they are cut."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.descriptors import as_many_descriptors_as_allowed
from tests.support.targets import Target
from tests.support.tunnel import exchange, wait_until
from tests.support.waits import sooner_than

BOX = "box-7"
STRANGERS = 5000

HANDSHAKE_S = 10
"""After which a stranger that says nothing is cut: who waits behind it waits so long."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for both ends of all connections, which are on this machine."""
    with as_many_descriptors_as_allowed(3 * STRANGERS):
        yield


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    with Target("echo") as target:
        yield target


@pytest.fixture(scope="module")
def made(echo: Target) -> Iterator[Cluster]:
    with cluster() as one:
        one.start()
        one.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        one.start_box(BOX)
        yield one


@contextlib.contextmanager
def strangers(port: int) -> Iterator[None]:
    """They connect, from one address, and say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(STRANGERS):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", port))
        yield


@pytest.mark.timeout(120)
@pytest.mark.parametrize("front_end", ["connect", "fleet"])
def test_on_the_ports_for_users(made: Cluster, echo: Target, front_end: str) -> None:
    server = psutil.Process(made.server.pid)
    before = server.num_fds()
    port = made.connect_port if front_end == "connect" else made.fleet_port
    with strangers(port):
        wait_until(lambda: server.num_fds() > before, "the server to have taken some")
        assert server.num_fds() < before + 200, "one address may have 64 unfinished handshakes"
        with made.dial(f"{BOX}:{echo.port}") as sock:
            assert exchange(sock) == b"ping"
        # A user at another address finds the port as it always was.
        raw = socket.create_connection(("127.0.0.1", port), 10, source_address=("127.0.0.2", 0))
        with sooner_than(HANDSHAKE_S, "an answer beside them"):
            with made.operator_tls().wrap_socket(raw, server_hostname="127.0.0.1") as sock:
                sock.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert sock.recv(12) == (b"HTTP/1.1 405" if front_end == "connect" else b"HTTP/1.1 200")
        wait_until(lambda: server.num_fds() < before + 20, "the strangers to be cut", 60)
