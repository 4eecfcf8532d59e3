"""One box floods its server over its own link: it costs itself, and the boxes beside it notice nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]
MALLORY = "mallory"
ROOT = Path(__file__).parent.parent.parent
ROUND_S = 2.0
TRIES = 10
"""How often both are measured, at most: what else the machine does disturbs one or the other. The two of a turn are
compared, and the quickest of all turns. A flood that is not held up slows every one.
"""
MOST = 1.5
"""How many times as long as without the flood an echo of others may take."""


@dataclass(kw_only=True)
class Street:
    """A server, a decent box with a connection that echoes, and the identity of one that is not decent."""

    made: Cluster
    connection: socket.socket

    def echo_s(self) -> tuple[float, float]:
        """The median and the 99th percentile of how long an echo takes, over ROUND_S."""
        took = []
        end_s = time.monotonic() + ROUND_S
        while (began_s := time.monotonic()) < end_s:
            assert exchange(self.connection) == b"ping"
            took.append(time.monotonic() - began_s)
        took.sort()
        return took[len(took) // 2], took[len(took) * 99 // 100]

    def cpu_s(self) -> float:
        return _cpu_s(self.made.server.pid)


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with cluster() as made, Target("echo") as echo:
        made.start()
        made.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        made.start_box(BOX)
        with made.dial(f"{BOX}:{echo.port}") as connection:
            yield Street(made=made, connection=connection)


@contextlib.contextmanager
def noisy(street: Street, kind: str) -> Iterator[None]:
    """A box that floods, once it has used up what it may do at once."""
    made = street.made
    if kind not in made.boxes:
        made.join(kind)
    argv = [sys.executable, "-m", "tests.attacks.noisy_box", made.tunnel_address, str(made.boxes[kind].state), kind]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            began_s, before = time.monotonic(), street.cpu_s()
            # A flood is over soon after it has begun to be held up; until then the server takes its burst, and the box
            # makes packets for a queue of its own.
            wait_until(lambda: _calm(street, process), "the server to hold the flood up", 30)
            print(f"{kind}: {street.cpu_s() - before:.2f} s of CPU in {time.monotonic() - began_s:.1f} s")
            yield
        finally:
            process.kill()


def _calm(street: Street, process: subprocess.Popen[str]) -> bool:
    """Whether the server takes less than a third of a core for half a second, and the box less than a tenth: what it
    does for itself, before it notices that it is held up, takes a core of this machine from everybody.
    """
    assert process.poll() is None, "the box has given up"
    before, own_before = street.cpu_s(), _cpu_s(process.pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert process.poll() is None, "the box has given up"
    return street.cpu_s() - before < 0.5 / 3 and _cpu_s(process.pid) - own_before < 0.5 / 10


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


@pytest.mark.parametrize("kind", ["opens", "pings", "links"])
def test_others_notice_nothing(street: Street, kind: str) -> None:
    quiet, loud = [], []
    ratios: list[float] = []
    best: list[float] = []
    for _ in range(TRIES):
        quiet.append(street.echo_s())
        with noisy(street, kind):
            loud.append(street.echo_s())
        for name, before_s, with_s in zip(("median", "p99"), quiet[-1], loud[-1], strict=True):
            print(f"{kind}: {name} {before_s * 1e3:.2f} -> {with_s * 1e3:.2f} ms")
        ratios = [with_s / before_s for before_s, with_s in zip(quiet[-1], loud[-1], strict=True)]
        best = [min(one[place] for one in loud) / min(one[place] for one in quiet) for place in range(2)]
        if min(max(ratios), max(best)) < MOST:
            return
    pytest.fail(f"an echo of others takes (median, p99) so many times as long: {ratios}, at best {best}")
