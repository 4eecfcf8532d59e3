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
from tests.support.tunnel import BOX, exchange
from tests.support.waits import Deadline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
MALLORY = "mallory"
ROOT = Path(__file__).parent.parent.parent
ROUND_S = 2.0
ROUNDS = 3


@dataclass(kw_only=True)
class Street:
    """A server, a decent box with a connection that echoes, and the identity of one that is not."""

    made: Cluster
    connection: socket.socket

    def echoes_s(self) -> list[float]:
        """How long each echo takes, for ROUND_S."""
        took = []
        end_s = time.monotonic() + ROUND_S
        while (began_s := time.monotonic()) < end_s:
            assert exchange(self.connection) == b"ping"
            took.append(time.monotonic() - began_s)
        return sorted(took)

    def server_cpu_s(self) -> float:
        used = psutil.Process(self.made.server.pid).cpu_times()
        return used.user + used.system


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with cluster() as made, Target("echo") as echo:
        made.start()
        made.join(MALLORY)
        made.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        made.start_box(BOX)
        with made.dial(f"{BOX}:{echo.port}") as connection:
            yield Street(made=made, connection=connection)


@contextlib.contextmanager
def noisy(street: Street, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A box that floods, from when it has begun and has used up what it may do at once."""
    where = [street.made.tunnel_address, str(street.made.boxes[MALLORY].state)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.attacks.noisy_box", *where, kind], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def at(share: float, values: list[float]) -> float:
    return values[int(share * len(values))]


@pytest.mark.parametrize("kind", ["opens", "pings", "nothing", "links"])
def test_others_notice_nothing(street: Street, kind: str) -> None:
    quiet, loud, cpu = [], [], 0.0
    for _ in range(ROUNDS):
        quiet += street.echoes_s()
        with noisy(street, kind):
            street.echoes_s()  # what it may do at once
            before = street.server_cpu_s()
            loud += street.echoes_s()
            cpu += street.server_cpu_s() - before
    quiet.sort(), loud.sort()
    for share in (0.5, 0.9, 0.99):
        print(kind, share, at(share, quiet) * 1e3, at(share, loud) * 1e3, at(share, loud) / at(share, quiet))
    print(kind, "n", len(quiet), len(loud), "cpu", cpu / ROUNDS / ROUND_S)
