"""Ports for processes that are told where to listen: nobody else takes them between the choice and the bind."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from typing import Final

_FIRST: Final = 12_000
_BLOCKS: Final = 180
_BLOCK_PORTS: Final = 100
"""12,000-29,999: below the ports that the kernel gives to outgoing connections and to binds of port 0 (32,768 and up,
ip_local_port_range), which could take a chosen port before its process binds it; and below Kubernetes' node ports
(30,000 and up)."""

_claims: list[socket.socket] = []
"""Names of this process's blocks. The kernel frees them when the process ends, however it ends."""


def _claim_a_block() -> range:
    """Ports that no other process of tests in this network namespace hands out.

    An abstract unix socket's name is as good as a lock file, and belongs to the network namespace as the ports do.
    """
    for block in random.sample(range(_BLOCKS), _BLOCKS):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0longline-tests-ports-{block}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        first = _FIRST + block * _BLOCK_PORTS
        return range(first, first + _BLOCK_PORTS)
    raise RuntimeError("other tests hold all ports that tests may use: wait for them to end")


def _claimed() -> Iterator[int]:
    while True:
        yield from _claim_a_block()


_next = _claimed()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nothing listens on, and that were not given before."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_next)
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            ports.append(port)
    return ports
