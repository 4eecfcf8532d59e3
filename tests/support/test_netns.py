"""A box's namespace: the box reaches out, nothing reaches in, nothing is left."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import BoxNamespace, NamespaceFailed, box_namespace, missing_for_namespaces

# The fixture, not a mark: a mark's condition would make a namespace whenever tests are collected.


@pytest.fixture
def namespace() -> Iterator[BoxNamespace]:
    if reason := missing_for_namespaces():
        pytest.skip(reason)
    with box_namespace() as made:
        yield made


def connect_from(namespace: BoxNamespace, host: str, port: int) -> str:
    code = f"import socket; s = socket.create_connection(({host!r}, {port}), 1); print(s.recv(9).decode())"
    done = subprocess.run(namespace.command([sys.executable, "-c", code]), capture_output=True, text=True, timeout=20)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_box_reaches_the_host_and_the_host_does_not_reach_the_box(namespace: BoxNamespace) -> None:
    with socket.create_server((namespace.host_address, 0)) as server:
        server.settimeout(10)
        code = f"import socket; socket.create_connection({server.getsockname()!r}).sendall(b'outward')"
        with subprocess.Popen(namespace.command([sys.executable, "-c", code])):
            connection, peer = server.accept()
            with connection:
                assert connection.recv(7) == b"outward"
                assert peer[0] == namespace.address
    with pytest.raises(TimeoutError):
        socket.create_connection((namespace.address, 22), 0.5)


def test_the_box_has_loopback_and_addresses_that_never_answer(namespace: BoxNamespace) -> None:
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "c = socket.create_connection(s.getsockname()); s.accept()[0].sendall(b'loopback'); print(c.recv(8).decode())"
    )
    assert namespace.run(sys.executable, "-c", code).strip() == "loopback"
    namespace.drop_outgoing("192.0.2.1")
    assert "TimeoutError" in connect_from(namespace, "192.0.2.1", 80)


def test_two_at_once_differ_and_both_are_gone_afterwards(namespace: BoxNamespace) -> None:
    with box_namespace() as other:
        assert other.address != namespace.address
        path = Path(other.path)
        assert path.exists()
    assert not path.exists()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert f"ll{other.index}h" not in links
    assert f"ll{namespace.index}h" in links


def test_it_is_gone_after_a_failure_inside() -> None:
    if reason := missing_for_namespaces():
        pytest.skip(reason)
    with pytest.raises(NamespaceFailed, match="no-such-link"), box_namespace() as namespace:
        namespace.run("ip", "link", "show", "no-such-link")
    assert not Path(namespace.path).exists()
