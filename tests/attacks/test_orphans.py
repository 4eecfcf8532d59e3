"""A client that sends and goes, to a service that reads nothing: what it left behind does not stay for ever."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from tests.support.cluster import cluster
from tests.support.targets import Target
from tests.support.tunnel import exchange, wait_until

pytestmark = pytest.mark.e2e

ORPHAN_S = 2.0
SEEN_S = 15.0
"""A unix socket that was closed is seen within 5 s; then ORPHAN_S and a quarter of it."""


@pytest.mark.parametrize("side", ["server", "agent"])
def test_it_ends_with_a_reset_at_the_service(side: str) -> None:
    """`side` alone has a short time; the other one's is 300 s, as it comes."""
    short = {"limits": {"orphan_s": ORPHAN_S}}
    with cluster() as made, Target("echo") as echo, Target("stalled", receive_buffer_bytes=16 * 1024) as stalled:
        if side == "server":
            made.configure(short)
        made.start()
        box = made.join("box-7", allow=[f"127.0.0.1:{stalled.port}", f"127.0.0.1:{echo.port}"])
        if side == "agent":
            box.configure(short)
        made.start_box("box-7")
        at_rest = made.server.descriptors(), box.agent.descriptors()
        # A part of what the client sends waits at the server for credit, and another at the box for the service.
        with made.dial(f"box-7:{stalled.port}") as client:
            client.settimeout(1.0)
            with suppress(TimeoutError):
                while True:
                    client.sendall(bytes(1024 * 1024))
        wait_until(lambda: "orphaned" in reasons(box.agent.log_text()), "the box's record of its end", SEEN_S)

        def left() -> tuple[int, int]:
            now = made.server.descriptors(), box.agent.descriptors()
            return now[0] - at_rest[0], now[1] - at_rest[1]

        # The other side hears of the end a moment after the one that this record is of.
        wait_until(lambda: max(left()) <= 0, "no sockets to be left", SEEN_S)
        with made.dial(f"box-7:{echo.port}") as other:
            assert exchange(other) == b"ping"


def reasons(log: str) -> list[str]:
    """Why the connections ended that a log tells of."""
    records = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [record.get("reason", "") for record in records if record.get("event") == "end"]
