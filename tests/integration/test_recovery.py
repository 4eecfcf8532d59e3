"""A box that was off past the end of its certificate comes back by itself; a copy of its disk does not."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.clock import clock_in, clock_of, needs_faketime
from tests.support.cluster import Box, Cluster, cluster
from tests.support.processes import Daemon, run_command
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s
from tunnel.aio.operate.admin_client import unix_client

pytestmark = [pytest.mark.e2e, needs_faketime]

AGO = "-40d"
"""When the box was on last: its certificate has ended, the server's has not."""
BACK_S = 40.0
"""The dial, what is wrong with it, and the recovery; the agent looks for what is due at its start."""


@contextmanager
def running_then() -> Iterator[Cluster]:
    """A server that was set up, was joined by box-7, and runs, all 40 days ago; nothing runs at the end."""
    with cluster(prefix=clock_of(AGO)) as made:
        words = ["cloud-server", "run", "--config", str(made.config)]
        then = made.server = Daemon("then", words, made.folder / "then.log", prefix=clock_of(AGO))
        try:
            then.start().wait_ready(scaled_s(30))
            made.boxes["box-7"] = box = joined_then(made)
            assert end_of(box) < datetime.now(UTC)
            yield made
        finally:
            then.close()


@pytest.fixture
def long_ago() -> Iterator[Cluster]:
    """A server that was set up, and was joined by box-7, 40 days ago; it runs at today's time from here on."""
    with running_then() as made:
        go_on_today(made)
        yield made


def go_on_today(made: Cluster) -> None:
    """The server ends, and starts again at today's time."""
    made.server.stop()
    words = ["cloud-server", "run", "--config", str(made.config)]
    made.server = Daemon("cloud-server", words, made.folder / "cloud-server.log")
    made.start()


def joined_then(made: Cluster) -> Box:
    state, token = made.folder / "box-7", made.folder / "box-7.token"
    ask = "token", "create", "--config", str(made.config), "--agent", "box-7"
    token.write_text(run_command("cloud-server", *ask, prefix=clock_of(AGO)))
    where = "--server", made.tunnel_address, "--token-file", str(token), "--state", str(state)
    run_command("edge-agent", "join", *where, prefix=clock_of(AGO))
    return Box(name="box-7", state=state, agent=agent_of(state))


def agent_of(state: Path, prefix: Sequence[str] = ()) -> Daemon:
    words = ["edge-agent", "run", "--config", str(state / "edge-agent.toml")]
    return Daemon(state.name, words, state.parent / f"{state.name}.log", prefix=prefix)


def end_of(box: Box) -> datetime:
    return x509.load_pem_x509_certificate((box.state / "agent.crt").read_bytes()).not_valid_after_utc


def turn_of(state: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((state / "renewals.json").read_text())
    return found


def listed(made: Cluster) -> str:
    return run_command("cloud-server", "agent", "list", "--config", str(made.config))


def test_a_box_that_was_off_past_its_end_comes_back_and_its_copy_does_not(long_ago: Cluster) -> None:
    box = long_ago.boxes["box-7"]
    copy = long_ago.folder / "copy"
    shutil.copytree(box.state, copy)
    box.agent.start().wait_ready(scaled_s(BACK_S))
    assert end_of(box) - datetime.now(UTC) > timedelta(days=6)
    wait_until(lambda: "came back after its certificate's end 1 time" in listed(long_ago), "it is counted")
    assert turn_of(box.state) == {"generation": 1, "nonce": ""}

    second = agent_of(copy)
    try:
        second.start().wait_for_log("LL2050", scaled_s(BACK_S))
        assert "READY=1" not in second.notify.states
    finally:
        second.close()
    assert "a copy of its disk was turned away" in listed(long_ago)
    asked = unix_client(long_ago.config.parent / "admin.sock")
    shown = asked.get("agents/box-7")
    assert shown["recoveries"] == 1
    assert "LL2050" in [fact["code"] for fact in shown["facts"]]
    assert {"recovered", "copied"} <= {event["kind"] for event in asked.get("events")["events"]}
    assert box.agent.running


def test_a_revoked_one_stays_away(long_ago: Cluster) -> None:
    run_command("cloud-server", "agent", "revoke", "--config", str(long_ago.config), "box-7", "--reason", "stolen")
    box = long_ago.boxes["box-7"]
    box.agent.start().wait_for_log("was revoked (stolen)", scaled_s(BACK_S))
    assert "READY=1" not in box.agent.notify.states
    assert end_of(box) < datetime.now(UTC)


def test_a_clock_that_is_ahead_costs_nothing_and_one_that_is_behind_nothing_for_good() -> None:
    with cluster() as made:
        made.start()
        box = made.join("box-7")
        box.agent = agent_of(box.state, clock_of("+60d"))
        box.agent.start().wait_ready(scaled_s(BACK_S))
        box.agent.wait_for_log("certificate renewed", scaled_s(BACK_S))
        box.agent.stop()
        assert "came back" not in listed(made), "its certificate is good by the server's clock"
        box.agent = agent_of(box.state, clock_of("-60d"))
        box.agent.start().wait_for_log("clock", scaled_s(BACK_S))
        assert "READY=1" not in box.agent.notify.states
        box.agent.close()
        box.agent = agent_of(box.state)
        box.agent.start().wait_ready(scaled_s(BACK_S))


def test_a_cloud_that_was_away_for_a_month_locks_nobody_out(long_ago: Cluster) -> None:
    box = long_ago.boxes["box-7"]
    long_ago.server.stop()
    box.agent.start().wait_for_log("cannot connect", scaled_s(BACK_S))
    long_ago.start()
    # Its renewal failed, and is not tried for a minute; but a dial that is turned away tells that the cloud is back.
    box.agent.wait_for_log("certificate renewed", scaled_s(BACK_S))
    wait_until(lambda: "READY=1" in box.agent.notify.states, "it is connected", scaled_s(BACK_S))


def test_a_box_that_dials_a_cloud_all_the_month_is_back_with_it() -> None:
    """Its certificate ends while it runs, and nobody starts it again."""
    with running_then() as made:
        box, clock = made.boxes["box-7"], made.folder / "clock"
        clock.write_text(AGO)
        box.agent = agent_of(box.state, clock_in(clock))
        box.agent.start().wait_ready(scaled_s(BACK_S))
        made.server.stop()
        with socket.create_server(("127.0.0.1", made.tunnel_port)) as nobody:
            nobody.settimeout(scaled_s(BACK_S))
            for offset in ("-37d", "-34d", "-20d", "-1d", "+0"):
                clock.write_text(offset)
                for _ in range(3):  # some may have begun before
                    nobody.accept()[0].close()
        assert end_of(box) < datetime.now(UTC)
        pid = box.agent.pid
        go_on_today(made)
        asked = unix_client(made.config.parent / "admin.sock")
        wait_until(lambda: asked.get("agents/box-7")["state"] == "up", "it is connected again", scaled_s(BACK_S))
        assert end_of(box) - datetime.now(UTC) > timedelta(days=6)
        assert (box.agent.running, box.agent.pid) == (True, pid)
        assert "came back after its certificate's end 1 time" in listed(made)
