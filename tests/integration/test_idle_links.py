"""A server with many idle agents lets each be silent for longer, and still finds a dead link soon where it matters."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.tunnel import Tunnel, exchange, tunnel

SUSPECT_S = 0.5
DEAD_S = 1.0
PINGS_PER_S = 0.25
"""One agent is already too many for that: it is asked each 4 s."""
_SILENT = re.compile(r"no sign of life for ([\d.]+) s")


@pytest.fixture(scope="module")
def spread() -> Iterator[Tunnel]:
    times = {"suspect_after_s": SUSPECT_S, "dead_after_s": DEAD_S, "pings_per_s": PINGS_PER_S}
    with tunnel(["echo"], server={"tunnel": times}) as made:
        yield made


def _noticed_after_s(made: Tunnel) -> float:
    """Freeze the agent until the server gives its link up; returns the silence that took."""
    server, seen = made.cluster.server, len(made.cluster.server.log_text())
    made.box.agent.send(signal.SIGSTOP)
    try:
        found = _SILENT.search(server.wait_for_log("no sign of life", 20.0, after=seen))
    finally:
        made.box.agent.send(signal.SIGCONT)
    assert found is not None
    return float(found[1])


@pytest.mark.e2e
def test_an_idle_link_is_asked_as_often_as_the_server_can_bear(spread: Tunnel) -> None:
    time.sleep(2 * SUSPECT_S)  # by then the agent has asked, and was told
    assert _noticed_after_s(spread) > 1 / PINGS_PER_S
    with spread.dial("echo") as sock:
        assert exchange(sock) == b"ping"


def test_a_link_with_a_stream_is_asked_as_soon_as_ever(spread: Tunnel) -> None:
    with spread.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        assert _noticed_after_s(spread) < 1 / PINGS_PER_S
        assert exchange(sock) == b"ping"
