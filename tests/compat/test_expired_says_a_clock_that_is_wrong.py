"""A box whose clock was six days ahead was told that its join token had expired, and to make another: in vain."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

import pytest

from tests.support.clock import clock_of, library, needs_faketime
from tests.support.cluster import Cluster, cluster
from tests.support.processes import command_result, run_command
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, needs_faketime]

BEFORE_ALL = "@1970-01-02 00:00:00"
"""What a box without a battery says after a power cut."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cluster]:
    with cluster() as made:
        made.start()
        yield made


def join(
    made: Cluster, name: str, clock: Sequence[str], *, token: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    file = made.folder / f"{name}.token"
    words = ["cloud-server", "token", "create", "--config", str(made.config), "--agent", name]
    file.write_text(run_command(*words, prefix=token))
    where = ["--server", made.tunnel_address, "--token-file", str(file), "--state", str(made.folder / name)]
    return command_result("edge-agent", "join", *where, prefix=clock)


def test_six_days_ahead_the_box_joins_and_its_clock_is_named(cloud: Cluster) -> None:
    done = join(cloud, "box-7", clock_of("+6d"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("joined as box-7\n")
    assert done.stderr.startswith("warning: this machine's clock is ")
    assert "days ahead of the server's (this machine's clock says 20" in done.stderr
    assert "timedatectl" in done.stderr
    assert "expired" not in done.stderr


def test_a_token_that_has_expired_by_the_servers_clock_is_told_as_before(cloud: Cluster) -> None:
    done = join(cloud, "box-8", [], token=clock_of("-2d"))
    assert done.returncode == 1
    assert "the join token expired at 20" in done.stderr
    assert "(the server's clock says 20" in done.stderr
    assert "make another" in done.stderr
    assert "this machine's clock" not in done.stderr, "it is right"


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        (BEFORE_ALL, "the server's certificate is not valid before 20"),
        ("+900d", "the server's certificate expired on 20"),
    ],
)
def test_so_far_off_that_no_server_looks_good(cloud: Cluster, clock: str, said: str) -> None:
    done = join(cloud, "box-9", clock_of(clock))
    assert done.returncode == 1
    assert said in done.stderr
    assert "this machine's clock says " in done.stderr
    assert "set it (timedatectl" in done.stderr
    assert join(cloud, "box-9", []).returncode == 0, "once it is right"


def test_an_agent_that_starts_in_1970_says_so_and_connects_once_the_clock_is_right(cloud: Cluster) -> None:
    box = cloud.join("box-10")
    rtc = cloud.folder / "rtc"
    rtc.write_text(BEFORE_ALL)
    box.agent.go_through("env", "-u", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1",
                         f"FAKETIME_TIMESTAMP_FILE={rtc}", "LD_PRELOAD=" + library())  # fmt: skip
    box.agent.start()
    text = box.agent.wait_for_log("is not valid before 20", 20)
    assert "this machine's clock says 1970-01-02" in text
    rtc.write_text("+0")
    box.agent.wait_ready(60)


def test_a_server_with_a_wrong_clock_says_what_it_believes(cloud: Cluster) -> None:
    with cluster(prefix=clock_of("-1d")) as made:
        made.start()
        box = made.join("box-7")
        made.start_box("box-7")
        box.agent.stop()
        made.server.stop()
        made.server.go_through(*clock_of("+20d"))
        made.start()
        box.agent.start()
        text = made.server.wait_for_log("expired", 20)
        assert "this machine's clock says 20" in text
        box.agent.wait_for_log("does not accept this box's certificate", 20)
        wait_until(lambda: "this machine's clock says 20" in box.agent.log_text(), "the box says its own time")
