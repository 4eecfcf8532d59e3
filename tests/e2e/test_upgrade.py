"""A server replaced while clients come: by `cloud-server upgrade`, or by a manager that keeps its listeners."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from tests.support.callers import Callers, by_socks, echoed, lists_nodes
from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ends_in_reset
from tests.support.ports import free_ports
from tests.support.processes import command_result
from tests.support.service_manager import ServiceManager
from tests.support.targets import Target
from tests.support.transfers import Transfer
from tests.support.tunnel import exchange, wait_until

BOX = "box-7"
TIMES = 10
MIB = 1024 * 1024


@dataclass(kw_only=True)
class Managed:
    """A server under a service manager, and its box."""

    cluster: Cluster
    manager: ServiceManager
    targets: dict[str, Target]
    forwards: dict[str, int]
    socks_port: int
    token: str

    def upgrade(self) -> tuple[int, str]:
        """`cloud-server upgrade`: its exit code and what it said."""
        done = command_result("cloud-server", "upgrade", "--config", str(self.cluster.config), timeout_s=60)
        return done.returncode, done.stdout + done.stderr

    def dial(self, behaviour: str) -> socket.socket:
        """Through the static forward of a target."""
        return socket.create_connection(("127.0.0.1", self.forwards[behaviour]), 30)

    def works(self) -> bool:
        with contextlib.suppress(OSError), self.dial("echo") as sock:
            return exchange(sock) == b"ping"
        return False

    def calls(self, clients: int) -> dict[str, tuple[Callable[[], None], int]]:
        """What that many clients do all the time, in every way in."""
        tls: ssl.SSLContext = self.cluster.operator_tls()
        target = f"{BOX}:{self.targets['echo'].port}"
        port = self.targets["echo"].port
        each = clients // 5
        return {
            "connect over unix": (lambda: echoed(self.cluster.dial(target, timeout_s=30)), each),
            "connect over TLS": (lambda: echoed(self.cluster.dial_tls(target, timeout_s=30)), each),
            "socks": (lambda: echoed(by_socks(self.socks_port, self.token, port, BOX)), each),
            "fleet": (lambda: lists_nodes(self.cluster.fleet_port, tls), each),
            "forward": (lambda: echoed(self.dial("echo")), each),
        }


@contextlib.contextmanager
def managed(*, store_max: int = 0, drain_s: float = 30.0) -> Iterator[Managed]:
    with cluster() as made, contextlib.ExitStack() as stack:
        targets = {name: stack.enter_context(Target(name)) for name in ("echo", "source", "flood")}
        forwards = {name: made.forward(BOX, f"127.0.0.1:{target.port}") for name, target in targets.items()}
        (socks_port,) = free_ports(1)
        made.configure({"socks": {"listen": f"127.0.0.1:{socks_port}"}, "drain_s": drain_s})
        token = made.user_token("ann")
        argv = ["cloud-server", "run", "--config", str(made.config)]
        manager = stack.enter_context(ServiceManager(argv, made.server.log, store_max=store_max))
        manager.start()
        made.join(BOX, allow=[f"127.0.0.1:{target.port}" for target in targets.values()])
        made.start_box(BOX)
        yield Managed(
            cluster=made, manager=manager, targets=targets, forwards=forwards, socks_port=socks_port, token=token
        )  # fmt: skip


@pytest.mark.timeout(400)
def test_a_hundred_clients_see_no_refusal_through_ten_upgrades() -> None:
    with managed() as made:
        first = made.manager.main_pid
        with Callers(made.calls(100)) as callers:
            for _ in range(TIMES):
                before = callers.count.total()
                code, said = made.upgrade()
                assert code == 0, said
                made.manager.wait_for("READY=1")
                wait_for_calls(callers, before + 100)
        assert callers.refusals == []
        assert made.manager.main_pid != first
        assert min(callers.count[kind] for kind in callers.longest_s) >= TIMES
        assert made.manager.refused == []  # only the main process may speak to systemd
        print(callers.summary())


@pytest.mark.timeout(400)
def test_a_hundred_clients_see_no_refusal_through_ten_restarts_that_keep_the_listeners() -> None:
    with managed(store_max=64) as made:
        with Callers(made.calls(100)) as callers:
            for _ in range(TIMES):
                before = callers.count.total()
                made.manager.restart()
                wait_for_calls(callers, before + 100)
        assert callers.refusals == []
        assert min(callers.count[kind] for kind in callers.longest_s) >= TIMES
        print(callers.summary())


def test_who_comes_while_a_killed_server_is_away_is_served_by_the_next() -> None:
    with managed(store_max=64) as made:
        made.manager.crash()
        with contextlib.ExitStack() as waiting:
            socks = [waiting.enter_context(made.dial("echo")) for _ in range(10)]
            with socket.socket(socket.AF_UNIX) as unix:
                unix.connect(str(made.cluster.unix_socket))
                unix.settimeout(30)
                target = f"{BOX}:{made.targets['echo'].port}"
                unix.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                made.manager.start()
                assert [exchange(sock) for sock in socks] == [b"ping"] * 10
                assert unix.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("how", ["upgrade", "restart"])
def test_what_runs_ends_whole_or_is_reset_when_the_drain_is_over(how: str) -> None:
    with managed(store_max=64, drain_s=4.0) as made, made.dial("source") as bulk, made.dial("flood") as endless:
        old = made.manager.main_pid
        copy = Transfer(bulk, 64 * MIB)
        endless.recv(1000)
        wait_until(lambda: copy.moved_bytes > 0, "the copy to begin")
        if how == "upgrade":
            code, said = made.upgrade()
            assert code == 0, said
            assert made.works()  # while the one before drains
            assert psutil.pid_exists(old)
        else:
            made.manager.restart()
        copy.result()
        assert ends_in_reset(endless)
        wait_until(lambda: not running(old), "the end of the process before", 15)
        assert made.works()


def test_a_watch_ends_before_it_tells_of_agents_that_only_moved() -> None:
    with managed(drain_s=20.0) as made, made.dial("echo") as kept:
        assert exchange(kept) == b"ping"
        tls = made.cluster.operator_tls()
        connection = http.client.HTTPSConnection("127.0.0.1", made.cluster.fleet_port, timeout=30, context=tls)
        connection.request("GET", "/api/v1/nodes?watch=true")
        answer = connection.getresponse()
        first = answer.readline()
        assert ready(first) == "True"
        old = made.manager.main_pid
        code, said = made.upgrade()
        assert code == 0, said
        rest = [line for line in answer.read().splitlines() if line.strip()]  # to a whole end, not to a reset
        assert running(old)  # it has a stream, and drains
        assert {ready(line) for line in rest} <= {"True"}
        connection.close()
        assert exchange(kept) == b"ping"


@pytest.mark.parametrize("fault", ["configuration", "certificate"])
def test_a_new_process_that_does_not_start_leaves_the_old_one_serving(fault: str) -> None:
    with managed() as made, made.dial("echo") as kept:
        assert exchange(kept) == b"ping"
        pid = made.manager.main_pid
        config, certificate = made.cluster.config, made.cluster.config.parent / "server.crt"
        broken = config if fault == "configuration" else certificate
        right = broken.read_bytes()
        broken.write_bytes(b"[tunnel\n" if fault == "configuration" else b"nothing\n")
        os.kill(pid, signal.SIGUSR2)  # the command reads the same configuration, and would say so itself
        log = made.cluster.server.wait_for_log("no upgrade: the new process failed, this one goes on", 30)
        assert "ended with exit code" in log
        broken.write_bytes(right)
        assert exchange(kept) == b"ping"
        assert made.works()
        assert made.manager.main_pid == pid
        assert successors(pid) == []
        code, said = made.upgrade()
        assert code == 0, said
        assert made.works()


def test_the_command_says_why_there_is_no_upgrade() -> None:
    with managed(drain_s=20.0) as made, made.dial("echo") as kept:
        assert exchange(kept) == b"ping"
        certificate = made.cluster.config.parent / "server.crt"
        certificate.write_bytes(b"nothing\n")
        code, said = made.upgrade()
        assert code == 1
        assert f"not upgraded, process {made.manager.main_pid} goes on: it ended with exit code 1" in said
        os.kill(made.manager.main_pid, signal.SIGTERM)
        made.manager.wait_for("STOPPING=1")
        code, said = made.upgrade()
        assert code == 1
        assert "the server is stopping" in said
        os.kill(made.manager.main_pid, signal.SIGTERM)
        wait_until(lambda: not running(made.manager.main_pid), "the end of the server", 15)
        code, said = made.upgrade()
        assert code == 1
        assert "nothing to upgrade, start it" in said


def test_two_upgrades_at_once_are_one() -> None:
    with managed() as made:
        pid = made.manager.main_pid
        os.kill(pid, signal.SIGUSR2)
        made.cluster.server.wait_for_log("starting another process to take over")
        os.kill(pid, signal.SIGUSR2)
        made.cluster.server.wait_for_log("an upgrade is under way")
        wait_until(lambda: made.manager.main_pid != pid, "the upgrade", 30)
        made.manager.wait_for("READY=1")
        wait_until(lambda: not running(pid), "the end of the process before", 15)
        assert successors(made.manager.main_pid) == []
        assert made.works()


def test_a_stop_during_an_upgrade_stops_both() -> None:
    with managed() as made:
        pid = made.manager.main_pid
        os.kill(pid, signal.SIGUSR2)
        made.cluster.server.wait_for_log("starting another process to take over")
        wait_until(lambda: successors(pid), "the new process", 5)
        (child,) = successors(pid)
        made.manager.stop()
        wait_until(lambda: not running(child), "the end of the new process", 5)
        assert not made.works()


def test_listeners_follow_the_configuration_of_the_new_process() -> None:
    with managed(store_max=64) as made:
        (port,) = free_ports(1)
        forwards = made.cluster.forwards
        removed = made.forwards.pop("flood")
        moved = [{**one, "listen": f"127.0.0.1:{port}"} for one in forwards if one["listen"].endswith(str(removed))]
        kept = [one for one in forwards if not one["listen"].endswith(str(removed))]
        made.cluster.configure({"forward": [*kept, *moved]})
        code, said = made.upgrade()
        assert code == 0, said
        made.manager.wait_for("READY=1")
        wait_until(lambda: refused(removed), "the end of the old address", 10)
        wait_until(lambda: not refused(port), "the new address", 10)
        assert made.works()
        names = sorted(name for name, _ in made.manager.store)
        assert f"forward 127.0.0.1_{port}" in names
        assert f"forward 127.0.0.1_{removed}" not in names
        made.cluster.configure({"socks": {"listen": f"0.0.0.0:{made.socks_port}"}})
        made.manager.restart()
        wait_until(lambda: not refused(made.socks_port), "the rebound address", 10)
        (bound,) = [kept for name, kept in made.manager.store if name == "socks"]
        with socket.socket(fileno=os.dup(bound)) as sock:
            assert sock.getsockname()[0] == "0.0.0.0"


def test_a_second_server_with_the_same_state_is_refused() -> None:
    with managed() as made:
        done = command_result("cloud-server", "run", "--config", str(made.cluster.config))
        assert done.returncode == 1
        assert f"process {made.manager.main_pid} runs with" in done.stderr
        assert made.works()


def ready(event: bytes) -> str:
    """The condition of that name of the node in an event of a watch."""
    conditions = json.loads(event)["object"]["status"]["conditions"]
    (status,) = [str(one["status"]) for one in conditions if one["type"] == "Ready"]
    return status


def wait_for_calls(callers: Callers, count: int) -> None:
    wait_until(lambda: callers.count.total() > count, "clients that go on", 60)


def running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def successors(pid: int) -> list[int]:
    """The children of a server that are servers, too: it has one that signs."""
    return [child.pid for child in psutil.Process(pid).children() if "run" in child.cmdline()]


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
