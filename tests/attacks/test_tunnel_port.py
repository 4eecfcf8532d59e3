"""Strangers, and boxes gone bad, at the port where boxes dial: what they can make the server hold, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.descriptors import as_many_descriptors_as_allowed
from tests.support.hostile_agent import stolen_context
from tests.support.strangers import HELLO, Growth, UnfinishedCalls, accepted, crowd, handshaken, open_at
from tests.support.targets import Target
from tests.support.tunnel import exchange, wait_until
from tests.support.waits import sooner_than
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.methods import JOIN, RENEW
from tunnel.aio.carriers.waiting import ABOVE_LIMIT, TOO_LATE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BOX = "box-7"
SILENT = 5000
STRANGERS = 3000
FLOOD_PER_S = 1500
"""How many strangers with a byte come in a second. gRPC takes in those of a faster flood before they can be looked at:
10,000 in a second, over loopback, took 70 MB for a moment (docs/decisions/0085-the-gate-of-the-tunnels-port.md).
"""
CALLING = 120
IDLE = 200
"""With a certificate; a handshake costs both ends some ms."""
PER_ADDRESS = 150
"""How many of one address may be without a call here."""
LIMITS = CarrierLimits()
LONGEST_S = 3 * LIMITS.call_timeout_s
"""Until the last of a crowd is gone, which has itself taken a while to come."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for this end of all connections."""
    with as_many_descriptors_as_allowed(SILENT + 1000):
        yield


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    with Target("echo") as target:
        yield target


@pytest.fixture(scope="module")
def made(echo: Target) -> Iterator[Cluster]:
    with cluster() as one:
        one.configure({"limits": {"tunnel_waiting_per_address": PER_ADDRESS}})
        one.start()
        one.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        one.start_box(BOX)
        yield one


def works(made: Cluster, echo: Target) -> None:
    with made.dial(f"{BOX}:{echo.port}") as sock:
        assert exchange(sock) == b"ping"


def at_port(made: Cluster) -> int:
    return open_at(psutil.Process(made.server.pid), made.tunnel_port)


def test_calls_that_do_not_finish(made: Cluster, echo: Target) -> None:
    context, address = stolen_context(made.boxes[BOX].state), (made.host, made.tunnel_port)
    growth = Growth(made.server.pid)
    # Half of them with a call that the certificate is not for, half with one that it is for.
    calls = accepted(lambda number: UnfinishedCalls(address, context, (JOIN, RENEW)[number % 2], 8), CALLING)
    assert len(calls) > CALLING // 2
    growth.watch(2)
    works(made, echo)
    wait_until(lambda: at_port(made) <= 1, "all but the box's connection to be gone", LONGEST_S)
    wait_until(lambda: growth.look() <= 20, "the memory to be given back", LONGEST_S)
    for one in calls:
        one.close()
    # What is on its way in of 8 at once, before a role is looked at; it was 1,040 MB.
    assert growth.most_mb <= 80
    log = made.server.tail(5000)
    assert "that takes role 'join'" in log
    assert "too many requests at once by" in log


def test_connections_that_say_nothing(made: Cluster, echo: Target) -> None:
    growth = Growth(made.server.pid)
    with crowd((made.host, made.tunnel_port), SILENT):
        with sooner_than(LIMITS.call_timeout_s, "a dial beside them"):
            works(made, echo)
        growth.watch(LIMITS.call_timeout_s)
    assert growth.most_mb <= 30
    wait_until(lambda: at_port(made) <= 1, "them to be gone", LONGEST_S)


def test_connections_that_begin_a_handshake(made: Cluster, echo: Target) -> None:
    growth = Growth(made.server.pid)
    with crowd((made.host, made.tunnel_port), STRANGERS, HELLO, per_s=FLOOD_PER_S):
        growth.watch(2)
        works(made, echo)
        wait_until(lambda: at_port(made) <= 1 + PER_ADDRESS, "those above the limit to be cut", LONGEST_S)
        with sooner_than(LONGEST_S, "a box that comes back"):
            made.boxes[BOX].agent.kill()
            made.start_box(BOX)
        wait_until(lambda: at_port(made) <= 1, "the rest to be cut", LONGEST_S)
    assert growth.most_mb <= 30
    works(made, echo)


def test_connections_with_a_good_certificate_and_no_call(made: Cluster, echo: Target) -> None:
    context, address = stolen_context(made.boxes[BOX].state), (made.host, made.tunnel_port)
    growth, seen = Growth(made.server.pid), len(made.server.log_text())
    strangers = accepted(lambda _number: handshaken(address, context), IDLE)
    assert len(strangers) > PER_ADDRESS
    growth.look()
    wait_until(lambda: at_port(made) <= 1 + PER_ADDRESS, "those above the limit to be cut", LONGEST_S)
    works(made, echo)
    wait_until(lambda: at_port(made) <= 1, "the rest to be cut", LONGEST_S)
    for reason in (ABOVE_LIMIT, TOO_LATE):
        made.server.wait_for_log(reason, LONGEST_S, after=seen)
    for one in strangers:
        one.close()
    assert growth.most_mb <= 20
