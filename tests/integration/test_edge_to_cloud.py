"""Connections from a box to what the cloud exposes: `[[listen]]` there, `[[expose]]` here, with real processes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ends_in_reset
from tests.support.ports import free_ports
from tests.support.processes import Daemon
from tests.support.relay_process import RelayProcess
from tests.support.targets import Target
from tests.support.transfers import Chatter, Transfer, cut_by_progress
from tests.support.tunnel import exchange, wait_until

BOX, OTHER = "site-a", "site-b"
EXPOSED = ("echo", "late-echo", "banner", "count", "source", "reset")
MIB = 1024 * 1024


@dataclass(kw_only=True)
class Upwards:
    """A cloud with services, and a box with a port for each."""

    cluster: Cluster
    link: RelayProcess
    ports: dict[str, int]
    targets: dict[str, Target]

    def dial(self, name: str, timeout_s: float = 20.0) -> socket.socket:
        """Connect to a port of the box."""
        return socket.create_connection(("127.0.0.1", self.ports[name]), timeout_s)

    def wait_for_record(self, daemon: Daemon, *words: str) -> None:
        """Wait until one line of a daemon's log has all these words."""
        wait_until(
            lambda: any(all(word in line for word in words) for line in daemon.log.read_text().splitlines()),
            f"{words} in the log of {daemon.name}",
        )


@pytest.fixture(scope="module")
def up() -> Iterator[Upwards]:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(cluster())
        targets = {name: stack.enter_context(Target(name)) for name in (*EXPOSED, "web")}
        expose: list[dict[str, object]] = [
            {"target": f"127.0.0.1:{targets[name].port}", "name": name, "agents": [BOX]} for name in EXPOSED
        ]
        expose.append({"target": f"127.0.0.1:{targets['web'].port}", "agents": [OTHER]})
        made.configure({"expose": expose})
        made.start()
        link = stack.enter_context(RelayProcess(("127.0.0.1", made.tunnel_port)))
        box = made.join(BOX, address=link.address)
        wanted = {name: name for name in EXPOSED}
        wanted |= {
            "by address": f"127.0.0.1:{targets['echo'].port}",
            "other's": f"127.0.0.1:{targets['web'].port}",
            "unknown": "printer",
            "server's own": f"127.0.0.1:{made.fleet_port}",
        }
        ports = dict(zip(wanted, free_ports(len(wanted)), strict=True))
        box.configure(
            {"listen": [{"listen": f"127.0.0.1:{ports[key]}", "target": target} for key, target in wanted.items()]}
        )
        made.start_box(BOX)
        yield Upwards(cluster=made, link=link, ports=ports, targets=targets)


@pytest.mark.parametrize("name", ["echo", "by address"])
def test_by_name_and_by_address(up: Upwards, name: str) -> None:
    with up.dial(name) as sock:
        assert exchange(sock) == b"ping"
    port = str(up.targets["echo"].port)
    up.wait_for_record(
        up.cluster.server, '"event":"end"', '"kind":"agent"', f'"who":"{BOX}"', port, '"bytes_to_agent":4'
    )
    up.wait_for_record(up.cluster.boxes[BOX].agent, '"event":"end"', '"listen"', port, '"bytes_to_agent":4')


def test_half_close_and_server_speaks_first(up: Upwards) -> None:
    with up.dial("late-echo") as sock:
        sock.sendall(b"all of it")
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read() == b"all of it"
    with up.dial("banner") as sock:
        assert sock.recv(100)


def test_a_reset_arrives_as_a_reset(up: Upwards) -> None:
    with up.dial("reset") as sock:
        assert exchange(sock, b"a") == b"!"
        sock.sendall(b"b")
        assert ends_in_reset(sock)


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("other's", "not_allowed", "this server's [[expose]] rules for site-a"),
        ("server's own", "not_allowed", "this server's [[expose]] rules for site-a"),
        ("unknown", "no_service", "this server exposes no printer to site-a"),
    ],
)
def test_what_is_not_exposed_is_reset_and_said_on_both_sides(up: Upwards, name: str, code: str, says: str) -> None:
    try:
        with up.dial(name) as sock:
            assert ends_in_reset(sock)
    except ConnectionResetError:  # it came sooner than this process was told that it is connected
        pass
    for daemon in (up.cluster.server, up.cluster.boxes[BOX].agent):
        up.wait_for_record(daemon, '"event":"refused"', code, says)


def test_cuts_during_a_transfer_up_and_an_open_echo(up: Upwards) -> None:
    with up.dial("echo") as chat, up.dial("count") as sock, Chatter(chat) as chatter:
        transfer = Transfer(sock, 48 * MIB, upload=True)
        cut_by_progress(up.link, transfer, 8, 48 * MIB)
        transfer.result()
        lines = chatter.lines
        wait_until(lambda: chatter.lines > lines, "the echo to go on")


def test_a_transfer_down(up: Upwards) -> None:
    with up.dial("source") as sock:
        transfer = Transfer(sock, 48 * MIB)
        cut_by_progress(up.link, transfer, 4, 48 * MIB)
        transfer.result()


def test_what_is_opened_while_the_link_is_down_waits_for_it(up: Upwards) -> None:
    up.link.refuse()
    up.link.cut()
    try:
        with up.dial("echo") as sock:
            sock.sendall(b"early")
            up.link.heal()
            assert sock.recv(5) == b"early"
    finally:
        up.link.heal()


def test_a_server_that_restarts_is_used_again(up: Upwards) -> None:
    with up.dial("echo") as old:
        assert exchange(old) == b"ping"
        up.cluster.server.kill()
        up.cluster.start()
        assert ends_in_reset(old)
    with up.dial("echo") as sock:
        assert exchange(sock) == b"ping"


def _closed_by(act: Callable[[], object]) -> bool:
    try:
        act()
    except ConnectionError:
        return True
    return False


def test_an_agent_that_stops_resets_what_it_cannot_finish(up: Upwards) -> None:
    with up.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        up.cluster.boxes[BOX].agent.kill()
        assert ends_in_reset(sock)
        assert _closed_by(lambda: up.dial("echo"))
    up.cluster.start_box(BOX)
