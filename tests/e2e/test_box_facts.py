"""What a box knows and the cloud does not is broken for real, mended, and told by the box at its next contact."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.operate.link_book import QUIET_S
from tests.support.agent_status import box_fault, status_of, wait_for_node
from tests.support.clock import clock_of, needs_faketime
from tests.support.cluster import Cluster, cluster
from tests.support.connect_proxy import proxy_beside
from tests.support.relay_process import RelayProcess
from tests.support.tunnel import wait_until

NAME = "cloud.test"
NO_NAMES = "127.0.0.1 localhost\n"
needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can give a process its own /etc/hosts"
)


class Names:
    """An /etc/hosts of one process alone, and no DNS server."""

    def __init__(self, folder: Path) -> None:
        self.hosts = folder / "hosts"
        self._resolv = folder / "resolv.conf"
        self._resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.well()

    def well(self) -> None:
        self.hosts.write_text(f"{NO_NAMES}127.0.0.1 {NAME}\n")

    def broken(self) -> None:
        self.hosts.write_text(NO_NAMES)

    @property
    def prefix(self) -> list[str]:
        """The words before a command that has these names."""
        mounts = f"mount --bind {self.hosts} /etc/hosts && mount --bind {self._resolv} /etc/resolv.conf"
        return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


@pytest.fixture
def cloud() -> Iterator[Cluster]:
    with cluster(hosts=[NAME]) as made:
        made.start()
        yield made


@needs_mounts
def test_dns_fails_and_the_box_dials_the_address_that_it_knows(cloud: Cluster) -> None:
    names = Names(cloud.folder)
    with RelayProcess(("127.0.0.1", cloud.tunnel_port)) as link:
        box = cloud.join("box-7", address=f"{NAME}:{link.port}", prefix=names.prefix)
        cloud.start_box("box-7")
        kept = box.state / "addresses.json"
        wait_until(kept.exists, "the address is kept")
        names.broken()
        for way in ("a cut link", "a new process"):
            if way == "a cut link":
                link.cut()
            else:
                box.agent.stop()
                cloud.start_box("box-7")
            wait_until(lambda: [fact["code"] for fact in status_of(box)[1].get("facts", [])] == ["LL3001"], way, 40)
            code, status = status_of(box)
            assert (code, status["servers"][0]["state"]) == (1, "up")
            assert f"{NAME} does not resolve on this box" in status["line"]
            wait_for_node(cloud, "box-7", lambda node: box_fault(node).get("status") == "True", "the cloud is told")
        names.well()
        wait_for_node(cloud, "box-7", lambda node: box_fault(node).get("status") == "False", "it is told of the end")
        assert status_of(box)[0] == 0


@needs_faketime
def test_the_clock_is_wrong(cloud: Cluster) -> None:
    box = cloud.join("box-7")
    box.agent.go_through(*clock_of("+10m"))
    cloud.start_box("box-7")
    wait_for_node(cloud, "box-7", lambda node: box_fault(node).get("reason") == "LL2018", "the cloud is told")
    code, status = status_of(box)
    assert (code, status["verdict"]) == (1, "warning")
    assert "ahead of the server's" in status["line"]
    assert 590 < status["clock_ahead_s"] < 610


def test_the_proxy_was_down(cloud: Cluster) -> None:
    with proxy_beside() as proxy, RelayProcess(("127.0.0.1", proxy.port)) as way:
        box = cloud.join("box-7")
        box.configure({"cloud": {"proxy": f"http://{way.address}"}})
        cloud.start_box("box-7")
        way.refuse()
        way.cut()
        box.agent.wait_for_log("cannot connect", 20)
        wait_until(lambda: away_s(status_of(box)[1]) > QUIET_S, "it is away for long enough to be a fact", 20)
        code, status = status_of(box)
        assert (code, status["verdict"]) == (2, "bad")
        assert f"no TCP connection to the proxy {way.address}" in status["line"]
        way.heal()
        wait_for_node(
            cloud, "box-7", lambda node: "the box had no link for" in box_fault(node).get("message", ""), "it is told"
        )
        assert f"no TCP connection to the proxy {way.address}" in str(status_of(box)[1]["facts"])
        assert status_of(box)[0] == 0  # over and told


def away_s(status: dict[str, Any]) -> float:
    (server,) = status["servers"]
    return (datetime.now(UTC) - datetime.fromisoformat(server["since"])).total_seconds()


def test_parts_that_are_down(cloud: Cluster) -> None:
    box = cloud.join("box-7")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        box.configure({"listen": [{"listen": address, "target": "web"}]})
        cloud.start_box("box-7")
        wait_for_node(cloud, "box-7", lambda node: box_fault(node).get("status") == "True", "the cloud is told")
        assert f"listen {address} is down: " in status_of(box)[1]["line"]
    wait_for_node(cloud, "box-7", lambda node: box_fault(node).get("status") == "False", "it is up again")
