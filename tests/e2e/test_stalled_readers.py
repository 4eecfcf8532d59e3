"""A thousand clients of one box that stop reading: memory stays within its bounds, and nobody else notices."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.cluster import cluster
from tests.support.targets import TargetProcess
from tests.support.tunnel import exchange, wait_until

READERS = 1000
MB = 1_000_000


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for this side's ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.timeout(180)
def test_memory_is_bounded_and_others_go_on() -> None:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(cluster())
        targets = stack.enter_context(TargetProcess(["flood", "echo"]))
        made.start()
        for name in ("box-7", "box-8"):
            made.join(name, allow=[f"127.0.0.1:{port}" for port in targets.ports.values()])
            made.start_box(name)
        daemons = [psutil.Process(pid) for pid in (made.server.pid, made.boxes["box-7"].agent.pid)]
        before = [daemon.memory_info().rss for daemon in daemons]
        for _ in range(READERS):
            sock = stack.enter_context(made.dial(f"box-7:{targets.ports['flood']}"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        settled(daemons)
        growth = [daemon.memory_info().rss - rss for daemon, rss in zip(daemons, before, strict=True)]
        # A session holds 64 MiB of windows at most, and what it has sent and not yet delivered, once more.
        assert max(growth) < 250 * MB, growth
        for name in ("box-7", "box-8"):
            start = time.monotonic()
            with made.dial(f"{name}:{targets.ports['echo']}") as sock:
                for _ in range(100):
                    assert exchange(sock) == b"ping"
            took_s = time.monotonic() - start
            assert took_s < 10, "it waits behind those that stand still"
        descriptors_open = [daemon.num_fds() for daemon in daemons]
        stack.pop_all().close()
    assert min(descriptors_open) > READERS


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
