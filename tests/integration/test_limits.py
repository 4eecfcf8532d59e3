"""The limits of both daemons: each is shown with its use, and what a file says of it counts."""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.request
from collections.abc import Iterator

import pytest

from cloud_server.limits_config import LimitsConfig as ServerLimits
from edge_agent.config import LimitsConfig as AgentLimits
from tests.support.agent_status import status_of
from tests.support.cluster import Cluster, cluster
from tests.support.ports import free_ports
from tests.support.processes import command_result, run_command
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange, wait_until
from tunnel.aio.operate.admin_client import unix_client
from tunnel.aio.process.config import ByteCount, Count
from tunnel.core.wire.faults import TOO_MANY_CLIENTS

RATES = {"pod_list_bytes_per_s"}
"""Settings in numbers of things or bytes that are not held."""


def counted(section: type[ServerLimits | AgentLimits]) -> set[str]:
    """The settings that something is counted against."""
    fields = dataclasses.fields(section)
    return {one.name for one in fields if isinstance(one.default, Count | ByteCount)} - RATES


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    with Target("echo") as target:
        yield target


@pytest.fixture(scope="module")
def pages() -> tuple[str, str]:
    """Where the server and the box show their metrics."""
    of_server, of_box = free_ports(2)
    return f"127.0.0.1:{of_server}", f"127.0.0.1:{of_box}"


@pytest.fixture(scope="module")
def made(echo: Target, pages: tuple[str, str]) -> Iterator[Cluster]:
    with cluster() as one:
        one.configure({"metrics": {"listen": pages[0]}, "limits": {"agent_streams": 100, "clients": 4}})
        one.start()
        box = one.join(BOX, allow=[f"127.0.0.1:{echo.port}"], host={"files": ["/etc/hostname"]})
        box.configure({"metrics": {"listen": pages[1]}, "limits": {"streams": 20, "commands": 7}})
        one.start_box(BOX)
        yield one


def of_server(made: Cluster) -> dict[str, tuple[int, int]]:
    """The limit and the use of it, by name."""
    status = unix_client(made.config.parent / "admin.sock").get("status")
    return {one["name"]: (one["limit"], one["used"]) for one in status["limits"]}


def of_box(made: Cluster) -> dict[str, tuple[int, int]]:
    return {one["name"]: (one["limit"], one["used"]) for one in status_of(made.boxes[BOX])[1]["limits"]}


def page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_each_is_shown_with_its_use(made: Cluster, pages: tuple[str, str], echo: Target) -> None:
    with made.dial(f"{BOX}:{echo.port}") as one, made.dial(f"{BOX}:{echo.port}") as other:
        assert exchange(one) == exchange(other) == b"ping"
        # The connection over which the box joined is gone soon after the box is, not at once.
        wait_until(lambda: of_server(made)["tunnel_connections"] == (16_384, 1), "the link to be the only connection")
        server, box = of_server(made), of_box(made)
        assert server.keys() == counted(ServerLimits)
        assert box.keys() == counted(AgentLimits)
        assert server["agent_streams"] == (100, 0), "those that the box opened"
        assert server["clients"] == (4, 2)
        assert server["links_at_once"] == (120, 1)
        assert 0 < server["agent_stream_memory_bytes"][1] == server["stream_memory_bytes"][1]
        assert 0 < server["pod_bytes_per_box"][1] == server["pod_bytes"][1]
        assert (server["pods_per_box"][1], server["pod_namespaces_per_box"][1]) == (1, 1)
        assert box["streams"][0] == 20
        assert box["streams"][1] >= 2, "and those of the fleet API, now and then"
        assert box["commands"] == (7, 0)
        assert box["stream_memory_bytes"][1] > 0
        shown = page(pages[0])
        assert 'longline_limit{limit="clients"} 4.0\n' in shown
        assert 'longline_limit_used{limit="clients"} 2.0\n' in shown
        shown = page(pages[1])
        assert 'longline_agent_limit{limit="streams"} 20.0\n' in shown
        assert 'longline_agent_limit_used{limit="commands"} 0.0\n' in shown
        told = run_command("longline", "status", "--socket", str(made.config.parent / "admin.sock"))
        assert "limit    clients: 2 of 4 (50%)\n" in told
        assert " more are not used\n" in told
    wait_until(lambda: of_server(made)["clients"][1] == 0, "the connections to be gone")


def test_beyond_it_nobody_comes_in_until_a_file_raises_it(made: Cluster, echo: Target) -> None:
    target = f"{BOX}:{echo.port}"
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(made.dial(target))
        with pytest.raises(ConnectionError):
            made.dial(target)
        assert TOO_MANY_CLIENTS.code in made.server.wait_for_log("connections refused")
        made.configure({"limits": {"clients": 5}})
        run_command("cloud-server", "reload", "--config", str(made.config))
        assert exchange(stack.enter_context(made.dial(target))) == b"ping"
        assert of_server(made)["clients"] == (5, 5)
        with pytest.raises(ConnectionError):
            made.dial(target)


def test_a_session_is_not_made_for_more_streams(made: Cluster) -> None:
    made.configure({"limits": {"agent_streams": 5000}})
    refused = command_result("cloud-server", "check", "--config", str(made.config))
    assert refused.returncode == 2
    assert "limits.agent_streams: must be 4096 or less" in refused.stdout + refused.stderr
    made.configure({"limits": {"agent_streams": 100}})
