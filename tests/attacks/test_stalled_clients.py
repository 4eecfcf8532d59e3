"""Three thousand clients of one box that stop reading: what waits for them is counted, and nobody else notices."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.cluster import cluster
from tests.support.descriptors import as_many_descriptors_as_allowed
from tests.support.fountain import fountain
from tests.support.targets import Target
from tests.support.tunnel import exchange, wait_until

CLIENTS = 3000
MB = 1_000_000
BEHIND_BYTES = 4096
"""What a client's own socket holds for it."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for this side's ends."""
    with as_many_descriptors_as_allowed():
        yield


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_memory_is_bounded_and_others_go_on() -> None:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(cluster())
        port = stack.enter_context(fountain())
        echo = stack.enter_context(Target("echo"))
        made.configure({"dial_timeout_s": 60})  # thousands of dials on a machine that others use, too
        made.start()
        for name in ("box-7", "box-8"):
            made.join(name, allow=[f"127.0.0.1:{port}", f"127.0.0.1:{echo.port}"])
            made.start_box(name)
        server, agent = (psutil.Process(one.pid) for one in (made.server, made.boxes["box-7"].agent))
        at_rest = server.memory_info().rss
        for _ in range(CLIENTS):
            sock = stack.enter_context(made.dial(f"box-7:{port}", timeout_s=60))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BEHIND_BYTES)
        settled([server, agent])
        print(f"agent {agent.memory_info().rss / MB:.0f} MB, server {server.memory_info().rss / MB:.0f} MB")
        # 13 kB of objects for each connection, and what waits: an eighth of 64 MiB, and 4 KiB of each.
        assert agent.memory_info().rss < 120 * MB
        # 16 kB for each, and the 80 MiB of a session.
        assert server.memory_info().rss - at_rest < 140 * MB
        for name in ("box-7", "box-8"):
            start = time.monotonic()
            with made.dial(f"{name}:{echo.port}") as sock:
                for _ in range(100):
                    assert exchange(sock) == b"ping"
            took_s = time.monotonic() - start
            assert took_s < 10, "it waits behind those that stand still"
        assert min(server.num_fds(), agent.num_fds()) > CLIENTS


def settled(daemons: list[psutil.Process]) -> None:
    """Wait until nothing moves any more: all windows are full."""
    last = -1

    def still() -> bool:
        nonlocal last
        time.sleep(0.5)
        now = sum(daemon.memory_info().rss for daemon in daemons)
        quiet = abs(now - last) < MB
        last = now
        return quiet

    wait_until(still, "the windows to fill", 60)
