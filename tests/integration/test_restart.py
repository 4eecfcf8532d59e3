"""A daemon dies and comes back: what cannot go on ends in a reset, and what is new works at once."""

from __future__ import annotations

import functools
import socket
import threading
import time

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused, ends_in_reset
from tests.support.relay_process import RelayProcess
from tests.support.targets import Target
from tests.support.tunnel import BOX, Tunnel, exchange, wait_until
from tests.support.waits import scaled_s

FLEET = 5
NEW_CONNECTIONS_S = 8.0
"""From the start of an agent that was killed, which takes a second; a dial that waits for one is given up after ten."""
BACK_S = 15.0
"""From when a restarted server listens; a back-off that grew on would be at half a minute."""


def open_pair(made: Tunnel) -> socket.socket:
    sock = made.dial("echo")
    assert exchange(sock) == b"ping"
    return sock


def test_the_agent_is_killed_and_started_again(own: Tunnel) -> None:
    endings = own.targets["echo"].endings
    with open_pair(own) as old:
        own.box.agent.kill()
        start = time.monotonic()
        own.box.agent.start()
        wait_until(lambda: works(own.cluster, own.targets["echo"]), "a new connection", 20)
        assert time.monotonic() - start < scaled_s(NEW_CONNECTIONS_S)
        assert ends_in_reset(old)
    wait_until(lambda: "ConnectionResetError" in endings, f"a reset at the target, not {endings}")


def test_the_agent_is_killed_in_a_transfer(own: Tunnel) -> None:
    with own.dial("flood") as sock:
        sock.recv(1000)
        own.box.agent.kill()
        own.restart_box()
        assert ends_in_reset(sock)
    endings = own.targets["flood"].endings
    wait_until(lambda: endings and endings[0] in ("ConnectionResetError", "BrokenPipeError"), f"a reset: {endings}")


def test_the_process_with_the_authoritys_key_goes_with_a_server_that_is_killed(own: Tunnel) -> None:
    own.cluster.join("box-9")
    (signing,) = own.cluster.server.children()
    assert "cloud_server.trust.signing" in signing.cmdline()
    own.cluster.server.kill()
    wait_until(lambda: not signing.is_running() or signing.status() == psutil.STATUS_ZOMBIE, "its end")


def test_the_server_is_killed_and_started_again(own: Tunnel) -> None:
    endings = own.targets["echo"].endings
    with open_pair(own) as old:
        own.cluster.server.kill()
        assert ends_in_reset(old)
        own.cluster.start()
        took_s = wait_until(lambda: works(own.cluster, own.targets["echo"]), "a new connection", 20)
        assert took_s < scaled_s(BACK_S)
    wait_until(lambda: "ConnectionResetError" in endings, f"a reset at the target, not {endings}")


@pytest.mark.e2e
def test_the_agent_outlives_a_server_that_is_away_for_long(own: Tunnel) -> None:
    own.cluster.server.kill()
    time.sleep(3)
    assert own.box.agent.running
    own.cluster.start()
    assert wait_until(lambda: works(own.cluster, own.targets["echo"]), "a new connection", 20) < scaled_s(BACK_S)


def test_a_server_that_is_restarted_in_order_has_its_agents_back_too(own: Tunnel) -> None:
    assert own.cluster.server.stop() == 0
    own.cluster.start()
    assert wait_until(lambda: works(own.cluster, own.targets["echo"]), "a new connection", 20) < scaled_s(BACK_S)


@pytest.mark.e2e
def test_a_restarted_server_is_not_stormed() -> None:
    with cluster() as made, Target("echo") as target:
        made.start()
        with RelayProcess(("127.0.0.1", made.tunnel_port)) as link:
            names = [f"box-{number}" for number in range(FLEET)]
            for name in names:
                made.join(name, address=link.address, allow=[f"127.0.0.1:{target.port}"])
            starts = [threading.Thread(target=made.start_box, args=(name,)) for name in names]
            for start in starts:
                start.start()
            for start in starts:
                start.join()
            before = link.counters()["accepted"]
            made.server.kill()
            time.sleep(3)
            made.start()
            listens_s = time.monotonic()
            for name in names:
                wait_until(functools.partial(works, made, target, name), f"{name} to be back", 10)
            assert time.monotonic() - listens_s < scaled_s(BACK_S), "all of them"
            attempts = link.counters()["accepted"] - before
            wait_until(lambda: link.counters()["open"] == FLEET, "one link for each box, and no more")
    # Full jitter over half a second, one, two, three: about seven tries each. For one, gRPC may open two connections,
    # or our own look for the fault one more.
    assert FLEET <= attempts <= 18 * FLEET, f"{attempts} attempts by {FLEET} boxes"


def works(made: Cluster, target: Target, box: str = BOX) -> bool:
    """Whether a new connection to the target gets through."""
    try:
        with made.dial(f"{box}:{target.port}", timeout_s=12) as sock:
            return exchange(sock) == b"ping"
    except (ConnectRefused, OSError):
        return False
