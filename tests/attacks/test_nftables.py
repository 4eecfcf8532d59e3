"""The rules for nftables that are shipped, in a network namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import missing_for_namespaces

RULES = Path(__file__).parents[2] / "packaging" / "nftables" / "longline.nft"
PORT = 7443
LIMITED, TRUSTED = "127.0.0.2", "127.0.0.1"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed (apt-get install nftables)"),
]

CONNECT = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=100)
kept = []
for _ in range(int(sys.argv[3])):
    try:
        kept.append(socket.create_connection(listener.getsockname(), 1, source_address=(sys.argv[1], 0)))
    except OSError:
        pass
print(len(kept))
"""
"""How many connections from an address to a port get through, of so many."""


@pytest.fixture
def namespace() -> Iterator[str]:
    if why := missing_for_namespaces():
        pytest.skip(why)
    name = f"longline-nft-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside(name, "ip", "link", "set", "lo", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def inside(namespace: str, *command: str) -> str:
    done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def let_in(namespace: str, source: str, port: int = PORT, tries: int = 8) -> int:
    return int(inside(namespace, sys.executable, "-c", CONNECT, source, str(port), str(tries)))


def load(namespace: str, tmp_path: Path, *changes: tuple[str, str]) -> None:
    """Loads the rules twice, as after a change, with other numbers."""
    text = RULES.read_text()
    for old, new in changes:
        assert text.count(old) == 2, "once for IPv4, and once for IPv6"
        text = text.replace(old, new)
    (file := tmp_path / "longline.nft").write_text(text)
    for _ in range(2):
        inside(namespace, "nft", "-f", str(file))


def test_an_address_has_so_many_connections(namespace: str, tmp_path: Path) -> None:
    assert let_in(namespace, LIMITED) == 8
    load(namespace, tmp_path, ("ct count over 1024", "ct count over 3"))
    assert let_in(namespace, LIMITED) == 3
    assert let_in(namespace, "127.0.0.3") == 3, "another address has its own"
    assert let_in(namespace, TRUSTED) == 8
    assert let_in(namespace, LIMITED, port=7444) == 8, "other ports are not its business"


def test_an_address_opens_so_many_in_a_second(namespace: str, tmp_path: Path) -> None:
    load(namespace, tmp_path, ("over 200/second burst 2000 packets", "over 1/second burst 2 packets"))
    assert let_in(namespace, LIMITED, tries=4) < 4
    assert let_in(namespace, TRUSTED, tries=4) == 4


def test_the_rules_are_taken_as_they_are_shipped(namespace: str, tmp_path: Path) -> None:
    load(namespace, tmp_path)
    assert "dport 7443" in inside(namespace, "nft", "list", "table", "inet", "longline")
    assert let_in(namespace, LIMITED) == 8
