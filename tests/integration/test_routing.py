"""Addresses and names that are not an agent's, with real processes: `[[route]]`, ambiguity, default routes, metrics."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused
from tests.support.ports import free_ports
from tests.support.targets import Target
from tests.support.tunnel import exchange, wait_until

A, B, SPARE = "site-a", "site-b", "spare"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A target that all sites have at the same loopback addresses."""
    with Target("echo", host="0.0.0.0") as target:
        yield target.port


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def sites(port: int, metrics_port: int) -> Iterator[Cluster]:
    with cluster() as made:
        made.configure(
            {
                "metrics": {"listen": f"127.0.0.1:{metrics_port}"},
                "route": [
                    {"agent": A, "targets": ["127.0.2.0/24:*", "127.0.9.9:*", f"db.internal:{port}"]},
                    {"agent": B, "targets": [f"127.0.2.2:{port}", "127.0.9.9:*"]},
                    {"agent": SPARE, "default": True},
                ],
            }
        )
        made.start()
        for name, allow in ((A, ["127.0.2.0/24:*"]), (B, ["127.0.2.2:*"]), (SPARE, ["127.0.3.0/24:*"])):
            made.join(name, allow=allow)
            made.start_box(name)
        yield made


def test_the_narrowest_route_wins(sites: Cluster, port: int) -> None:
    for host in ("127.0.2.1", "127.0.2.2"):
        with sites.dial(f"{host}:{port}") as sock:
            assert exchange(sock) == b"ping"
    # Each agent's own record says what went through it.
    for name, host in ((A, "127.0.2.1"), (B, "127.0.2.2")):
        _wait_for_record(sites, name, f'"target":"{host}:{port}"')


def _wait_for_record(sites: Cluster, name: str, words: str) -> None:
    wait_until(lambda: words in sites.boxes[name].agent.log.read_text(), f"{words} in the log of {name}")


def test_what_nobody_claims_goes_to_the_default_route(sites: Cluster, port: int) -> None:
    with sites.dial(f"127.0.3.1:{port}") as sock:
        assert exchange(sock) == b"ping"
    with pytest.raises(ConnectRefused) as caught:
        sites.dial(f"127.0.4.1:{port}")
    assert caught.value.status == 403
    assert "spare" in caught.value.reason


def test_an_address_that_two_agents_claim_is_refused_with_advice(sites: Cluster) -> None:
    with pytest.raises(ConnectRefused) as caught:
        sites.dial("127.0.9.9:80")
    assert caught.value.status == 409
    for words in ("127.0.9.9", "[[route]] of site-a", "[[route]] of site-b", "Hostname"):
        assert words in caught.value.reason


def test_metrics_tell_of_agents_and_dials(sites: Cluster, metrics_port: int, port: int) -> None:
    def scrape() -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        return {
            sample.name + "".join(sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    before = scrape()
    with ExitStack() as open_now:
        for host in ("127.0.2.1", "127.0.2.2"):
            exchange(open_now.enter_context(sites.dial(f"{host}:{port}")))
        during = scrape()
    assert during["konnectivity_network_proxy_server_ready_backend_connections"] == 3
    assert during["longline_agent_upsite-a"] == 1
    opened = "longline_dials_totalconnectok"
    assert during[opened] - before.get(opened, 0) == 2
    established = "konnectivity_network_proxy_server_established_connections"
    assert during[established] - before[established] == 2
    wait_until(lambda: scrape()[established] == before[established], "the streams are over")
    after = scrape()
    for direction in ("from_agent", "to_agent"):
        sample = "longline_stream_bytes_totalconnect" + direction
        assert after[sample] - before.get(sample, 0) == 2 * len(b"ping")
    ended = "longline_streams_ended_totalclosedconnect"
    assert after[ended] - before.get(ended, 0) == 2
    assert during["longline_agent_streamssite-a"] - before["longline_agent_streamssite-a"] == 1


def test_readiness_and_what_has_no_page(sites: Cluster, metrics_port: int) -> None:
    with urlopen(f"http://127.0.0.1:{metrics_port}/readyz", timeout=10) as response:
        assert response.read() == b"ok\n"
    with socket.create_connection(("127.0.0.1", metrics_port), 10) as sock:
        sock.sendall(b"CONNECT site-a:22 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 405 ")
