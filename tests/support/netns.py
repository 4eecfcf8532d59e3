"""A network namespace for a box behind NAT: it can reach the host's end of one link, and nothing can reach it.

`BoxNamespace` makes a veth pair on a /30 of its own from 198.18.0.0/15 (the block set aside for benches), a default
route to the host's end, and a firewall inside that drops whatever does not answer what the box began. Who holds an
index holds its name and subnet: the index is taken by binding an abstract unix socket, so it is free again as soon as
its holder is gone, and what a killed run left behind is removed by the next one that takes its index.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence

TOOLS = ("ip", "iptables", "nsenter")
INDEXES = 1 << 15
FIREWALL = (
    "-A INPUT -i lo -j ACCEPT",
    "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-P INPUT DROP",
    "-P FORWARD DROP",
)


class NamespaceFailed(Exception):
    """A command that sets up a namespace failed; the text has its output."""


def missing_for_namespaces() -> str:
    """Why no namespace can be made here, for people; an empty string when one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install iproute2 iptables util-linux)"
    try:
        _run("ip", "netns", "add", name := f"longline-try-{os.getpid()}")
    except NamespaceFailed as failed:
        return f"this machine allows no network namespaces: {failed}"
    try:
        _run("ip", "netns", "exec", name, "iptables", "-S")
    except NamespaceFailed as failed:
        return f"this machine allows no firewall in a namespace: {failed}"
    finally:
        _run("ip", "netns", "del", name)
    return ""


class BoxNamespace:
    """One box's network. Use `box_namespace()`, which removes it at the end."""

    def __init__(self) -> None:
        self._lock, self.index = _take_index()
        self.name = f"longline-{self.index}"
        self.path = f"/run/netns/{self.name}"
        base = (198 << 24 | 18 << 16) + 4 * self.index
        self.host_address = _dotted(base + 1)
        self.address = _dotted(base + 2)
        self._veth = f"ll{self.index}h"

    def open(self) -> None:
        """Make it.

        Raises:
            NamespaceFailed: a command did not work; `close` removes what there is.
        """
        self._remove()
        inside = f"ll{self.index}b"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._veth, "type", "veth", "peer", "name", inside)
        _run("ip", "link", "set", inside, "netns", self.name)
        _run("ip", "addr", "add", f"{self.host_address}/30", "dev", self._veth)
        _run("ip", "link", "set", self._veth, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/30", "dev", inside)
        self.run("ip", "link", "set", inside, "up")
        self.run("ip", "route", "add", "default", "via", self.host_address)
        for rule in FIREWALL:
            self.run("iptables", "-w", *rule.split())

    def close(self) -> None:
        """Remove it; processes in it are the caller's to end first."""
        self._remove()
        self._lock.close()

    def command(self, argv: Sequence[str]) -> list[str]:
        """What to start so that `argv` runs inside."""
        # Not `ip netns exec`: that mounts /sys anew, and the process no longer sees its cgroup.
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str) -> str:
        """Run a command inside, and return its output.

        Raises:
            NamespaceFailed: it failed.
        """
        return _run(*self.command(argv))

    def drop_outgoing(self, destination: str) -> None:
        """Have the box's own packets to an address vanish: what it dials there never answers."""
        self.run("iptables", "-w", "-A", "OUTPUT", "-d", destination, "-j", "DROP")

    def _remove(self) -> None:
        for argv in (("ip", "link", "del", self._veth), ("ip", "netns", "del", self.name)):
            with contextlib.suppress(NamespaceFailed):
                _run(*argv)


@contextlib.contextmanager
def box_namespace() -> Iterator[BoxNamespace]:
    """A namespace that is gone at the end, whatever happens."""
    namespace = BoxNamespace()
    try:
        namespace.open()
        yield namespace
    finally:
        namespace.close()


def remove_abandoned(index: int) -> bool:
    """Remove the namespace that a killed run has left behind; False when a run that lives has the index."""
    if (lock := _lock(index)) is None:
        return False
    with lock, contextlib.suppress(NamespaceFailed):
        _run("ip", "netns", "del", f"longline-{index}")
    return True


def _take_index() -> tuple[socket.socket, int]:
    # Each process starts elsewhere, so that parallel runs seldom try each other's.
    for step in range(INDEXES):
        index = (os.getpid() * 31 + step) % INDEXES
        if (lock := _lock(index)) is not None:
            return lock, index
    raise NamespaceFailed("every subnet for tests is taken")


def _lock(index: int) -> socket.socket | None:
    """Whoever has it has the index, until it closes it or is gone."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0longline-test-net-{index}")
    except OSError:
        lock.close()
        return None
    return lock


def _dotted(address: int) -> str:
    return socket.inet_ntoa(address.to_bytes(4, "big"))


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NamespaceFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
