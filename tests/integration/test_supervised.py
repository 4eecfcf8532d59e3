"""Both daemons as systemd sees them: a line that says how they are, and signs of life when the unit asks for them."""

from __future__ import annotations

import pytest

from tests.support.cluster import cluster
from tests.support.tunnel import BOX, wait_until
from tests.support.waits import scaled_s


@pytest.mark.e2e
def test_the_line_follows_the_link_and_signs_of_life_come() -> None:
    with cluster() as made:
        made.server.environment["WATCHDOG_USEC"] = "1000000"
        made.start()
        server = made.server.notify
        assert server.wait("STATUS=0 agents connected", scaled_s(5))
        made.join(BOX)
        box = made.start_box(BOX)
        assert server.wait("STATUS=1 agent connected", scaled_s(5))
        assert box.agent.notify.wait(f"STATUS=linked to {made.tunnel_address}", scaled_s(5))
        assert server.wait("WATCHDOG=1", scaled_s(5))
        signs = server.states.count("WATCHDOG=1")
        wait_until(lambda: server.states.count("WATCHDOG=1") > signs, "another sign of life")
        assert "WATCHDOG=1" not in box.agent.notify.states
        made.server.kill()
        assert box.agent.notify.wait("STATUS=no link to the cloud; the log says why", scaled_s(5))
