"""One server, one box and a relay as the link between them, with every kind of target on the box: ready to be used."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.support.cluster import Box, Cluster, Tables, cluster
from tests.support.relay_process import RelayProcess
from tests.support.targets import BEHAVIOURS, Target
from tests.support.waits import Deadline, scaled_s

BOX = "box-7"
STALLED_KERNEL_BYTES = 64 * 1024
DIAL_S = 15.0


@dataclass(kw_only=True)
class Tunnel:
    """What `tunnel()` made."""

    cluster: Cluster
    box: Box
    link: RelayProcess
    """Between box and server; the box is the one that dials through it."""
    targets: dict[str, Target]
    forwards: dict[str, int]
    """The port on the cloud side of each target's static forward."""

    def dial(self, behaviour: str, *, timeout_s: float = DIAL_S) -> socket.socket:
        """Connect to a target through its static forward: TCP at both ends, where a reset can be seen."""
        sock = socket.create_connection(("127.0.0.1", self.forwards[behaviour]), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect(self, behaviour: str, *, glued: bytes = b"") -> socket.socket:
        """Connect to a target through the CONNECT front end."""
        return self.cluster.dial(f"{self.box.name}:{self.targets[behaviour].port}", glued=glued)

    def restart_box(self) -> None:
        """Start the agent again after it was killed, and wait for its session."""
        self.cluster.start_box(self.box.name)


@contextlib.contextmanager
def tunnel(
    behaviours: Sequence[str] = tuple(BEHAVIOURS), *, allow: Sequence[str] = (), server: Tables | None = None
) -> Iterator[Tunnel]:
    """A tunnel that is up; everything is gone at the end.

    Args:
        behaviours: The targets on the box.
        allow: What the box allows beside these.
        server: More of the server's config.
    """
    with cluster() as made, contextlib.ExitStack() as stack:
        targets = {
            name: stack.enter_context(Target(name, receive_buffer_bytes=STALLED_KERNEL_BYTES * (name == "stalled")))
            for name in behaviours
        }
        ports = {name: target.port for name, target in targets.items()}
        forwards = {name: made.forward(BOX, f"127.0.0.1:{port}") for name, port in ports.items()}
        made.configure(server or {})
        made.start()
        link = stack.enter_context(RelayProcess(("127.0.0.1", made.tunnel_port)))
        box = made.join(BOX, address=link.address, allow=[*(f"127.0.0.1:{port}" for port in ports.values()), *allow])
        made.start_box(BOX)
        yield Tunnel(cluster=made, box=box, link=link, targets=targets, forwards=forwards)


def exchange(sock: socket.socket, data: bytes = b"ping") -> bytes:
    """Send, and read as much back."""
    sock.sendall(data)
    return read_exactly(sock, len(data))


def read_exactly(sock: socket.socket, size_bytes: int) -> bytes:
    """Read that much, or what there is until the end."""
    received = b""
    while len(received) < size_bytes and (data := sock.recv(size_bytes - len(received))):
        received += data
    return received


def read_to_end(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := sock.recv(256 * 1024):
        received += data
    return bytes(received)


def reset(sock: socket.socket) -> None:
    """Close so that the other end sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def wait_until(condition: Callable[[], object], what: str, within_s: float = 10.0) -> float:
    """Poll until the condition is true; returns how many seconds that took.

    Raises:
        AssertionError: it was not in time.
    """
    start, deadline = time.monotonic(), Deadline(within_s)
    while not condition():
        assert not deadline.passed(), f"not within {scaled_s(within_s):g} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - start
