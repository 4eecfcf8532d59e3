"""Thousands of clients give up on a link that is down: each costs the same, however many there are."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.descriptors import as_many_descriptors_as_allowed
from tests.support.ports import free_ports
from tests.support.tunnel import BOX, reset, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
FEW, MANY, ENOUGH = 250, 4000, 1500
AT_ONCE = 50
"""How many clients come before the agent must have taken them: fewer than a backlog holds."""
COMING_S = 6.0
"""How long clients may come: after 10 s the agent itself gives the first one up. A slow machine gets fewer there."""
OWN = 10
"""How many descriptors the agent opens or closes meanwhile for itself, at most: it dials the server that is gone."""
MOST = 1.6
"""How many times as much one of many may cost. Where each looks through all others, it is 3 and more."""
TRIES = 4


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for both ends of all connections."""
    with as_many_descriptors_as_allowed(2 * MANY):
        yield


@pytest.fixture
def made(descriptors: None) -> Iterator[Cluster]:
    """A server and a box, whose agent inherits these descriptors."""
    with cluster() as one:
        one.start()
        one.join(BOX)
        yield one


def cpu_s(pid: int) -> float:
    """What the main thread of a process has taken, to the nanosecond."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def give_up(agent: psutil.Process, port: int, most: int) -> tuple[float, int]:
    """The seconds of the agent's event loop that each client takes of so many that give up at one moment, and how many
    they were.
    """
    before, end_s = agent.num_fds(), time.monotonic() + COMING_S
    with contextlib.ExitStack() as clients:
        count = 0
        while count < most and time.monotonic() < end_s:
            for _ in range(AT_ONCE):
                clients.callback(reset, socket.create_connection(("127.0.0.1", port)))
            count += AT_ONCE
            taken = before + count - OWN
            wait_until(partial(_has_at_least, agent, taken), "the clients to wait for the link", 8)
        used_s = cpu_s(agent.pid)
    wait_until(lambda: agent.num_fds() < before + OWN, "all clients to be gone", 30)
    wait_until(lambda: _rests(agent.pid), "what waited for them to end", 30)
    return (cpu_s(agent.pid) - used_s) / count, count


def _has_at_least(process: psutil.Process, fds: int) -> bool:
    return process.num_fds() >= fds


def _rests(pid: int) -> bool:
    """Whether the main thread takes less than 2 ms in a fifth of a second."""
    before = cpu_s(pid)
    time.sleep(0.2)
    return cpu_s(pid) - before < 0.002


def test_to_give_up_on_a_link_costs_the_same_for_one_and_for_thousands(made: Cluster) -> None:
    (port,) = free_ports(1)
    box = made.boxes[BOX]
    box.configure({"listen": [{"listen": f"127.0.0.1:{port}", "target": "127.0.0.1:9"}]})
    made.start_box(BOX)
    made.server.kill()
    box.agent.wait_for_log('"disconnected"', 30)
    agent = psutil.Process(box.agent.pid)
    ratios = []
    for _ in range(TRIES):
        (few_s, few), (many_s, many) = give_up(agent, port, FEW), give_up(agent, port, MANY)
        print(f"{few}: {few_s * 1e6:.0f} us each, {many}: {many_s * 1e6:.0f} us each")
        if many < ENOUGH:
            continue
        ratios.append(many_s / few_s)
        if ratios[-1] < MOST:
            return
    pytest.fail(f"one of up to {MANY} costs so many times what one of {FEW} does: {ratios}")
