"""Whose the other end of a local connection is, as the kernel tells it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.accounts import as_account, needs_root
from tunnel.aio.sockets import tcp_owner
from tunnel.aio.sockets.tcp_owner import owner_of

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def connected(host: str = "127.0.0.1") -> Iterator[Pair]:
    """Both ends of a connection: the client's, and the one that was accepted."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen()
        with closing(socket.create_connection(listening.getsockname()[:2])) as client, listening.accept()[0] as taken:
            yield client, taken


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_ends_are_found(host: str) -> None:
    with connected(host) as (client, taken):
        for one, other in ((client, taken), (taken, client)):
            found = owner_of(one.getsockname()[:2], other.getsockname()[:2])
            assert found is not None
            assert (found.uid, found.inode) == (os.getuid(), os.fstat(one.fileno()).st_ino)


def test_an_end_that_is_closed_is_nobodys() -> None:
    """Its port may be another's by now, and the kernel tells 0 as its owner."""
    with connected() as (client, taken):
        ends = client.getsockname(), taken.getsockname()
        client.close()
        assert owner_of(*ends) is None, "it waits for the other end"
        taken.close()
        assert owner_of(*ends) is None, "it is over, and its port is kept for a minute"
        assert owner_of(ends[1], ends[0]) is None


def test_a_listener_is_no_end() -> None:
    """Who comes from another network may choose the port of a listener of ours for their own."""
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        assert owner_of(("127.0.0.1", listening.getsockname()[1]), ("127.0.0.1", 9)) is None


def test_nobody_there() -> None:
    assert owner_of(("192.0.2.1", 1), ("192.0.2.2", 2)) is None


@pytest.mark.parametrize(("own", "other"), [("127.0.0.1", "::1"), ("x", "127.0.0.1")])
def test_no_addresses(own: str, other: str) -> None:
    with pytest.raises(ValueError, match=r"families|not appear"):
        owner_of((own, 1), (other, 2))


@needs_root
def test_another_account_is_told(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        code = f"import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); sys.stdin.read()"
        argv = [*as_account(12345, tmp_path), sys.executable, "-c", code]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as client, listening.accept()[0] as taken:
            found = owner_of(taken.getpeername(), taken.getsockname())
            assert client.stdin is not None
            client.stdin.close()
        assert found is not None
        assert found.uid == 12345


@pytest.mark.parametrize("attributes", [b"", b"\x08\x00\x0f\x00abcd", b"\x04\x00\x15\x00", b"\x00\x00\x00\x00"])
def test_a_kernel_without_cgroups(attributes: bytes) -> None:
    assert tcp_owner._cgroup(attributes) is None
