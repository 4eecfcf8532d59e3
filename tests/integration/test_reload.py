"""A server whose file changes while it runs: each section, under connections that go on or must not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_client import tls_client
from tests.support.api_stand_in import ApiStandIn
from tests.support.cluster import edit_toml
from tests.support.connect_client import ConnectRefused, ends_in_reset
from tests.support.ports import free_ports
from tests.support.processes import command_result, run_command
from tests.support.targets import Target
from tests.support.tunnel import BOX, Tunnel, exchange, reset, tunnel, wait_until
from tests.support.waits import sooner_than
from tunnel.aio.operate.admin_client import AdminRefused, unix_client

ENDS_S = 1.0
"""Within which a connection ends that is not allowed any more."""


class Server:
    """The server of a tunnel, its file, and what it says of itself."""

    def __init__(self, made: Tunnel) -> None:
        self.tunnel = made
        self.config = made.cluster.config
        self.admin = unix_client(self.config.parent / "admin.sock")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.admin.get("status")
        return status

    def generation(self) -> int:
        generation: int = self.status()["config"]["generation"]
        return generation

    def change(self, changes: Mapping[str, Any]) -> list[str]:
        """Replaces the file by a changed one, as an editor or configuration management does; returns what changed."""
        before = self.generation()
        beside = self.config.with_suffix(".new")
        beside.write_bytes(self.config.read_bytes())
        edit_toml(beside, changes)
        beside.replace(self.config)
        wait_until(lambda: self.generation() > before, "the change is applied")
        changed: list[str] = self.status()["config"]["changed"]
        return changed

    def log(self, event: str) -> list[dict[str, Any]]:
        """Returns the lines of the log about an event, and its audit records."""
        lines = [
            json.loads(line) for line in self.tunnel.cluster.server.log.read_text().splitlines() if line[:1] == "{"
        ]
        return [line for line in lines if line.get("event") == event]

    def ends(self, trace_id: str) -> list[dict[str, Any]]:
        return [line for line in self.log("end") if line.get("trace_id") == trace_id]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Tests leave its file as they found it."""
    with tunnel(["echo", "banner"]) as made:
        yield Server(made)


@pytest.fixture(autouse=True)
def file_as_before(server: Server) -> Iterator[None]:
    text = server.config.read_text()
    yield
    if server.config.is_symlink():
        server.config.unlink()
    if not server.config.exists() or server.config.read_text() != text:
        beside = server.config.with_suffix(".before")
        beside.write_text(text)
        beside.replace(server.config)
        with contextlib.suppress(AdminRefused):
            server.admin.call("POST", "reload")
        assert server.status()["config"]["fault"] is None


@contextlib.contextmanager
def running(server: Server) -> Iterator[socket.socket]:
    """A connection through CONNECT that must outlive what the block does to the file."""
    with server.tunnel.connect("echo") as through:
        assert exchange(through) == b"ping"
        yield through
        assert exchange(through, b"still") == b"still"


def assert_ended(through: socket.socket) -> None:
    """By a reset, in time behind the change that was just applied."""
    with sooner_than(ENDS_S, "the end of a connection that is not allowed any more"):
        assert ends_in_reset(through)


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def forwards(server: Server) -> list[dict[str, str]]:
    return list(server.tunnel.cluster.forwards)


def test_a_forward_comes_and_goes_and_its_connections_go_with_it(server: Server) -> None:
    (port,) = free_ports(1)
    mine = {"listen": f"127.0.0.1:{port}", "agent": BOX, "target": forwards(server)[0]["target"]}
    with running(server), server.tunnel.dial("echo") as other:
        assert exchange(other) == b"ping"
        changed = server.change({"forward": [*forwards(server), mine]})
        assert changed == [f'forward: + listen = "127.0.0.1:{port}", agent = "{BOX}", target = "{mine["target"]}"']
        with socket.create_connection(("127.0.0.1", port), 10) as through:
            assert exchange(through) == b"ping"
            (one,) = [one for one in server.admin.get("opens")["opens"] if one["who"] == mine["listen"]]
            server.change({"forward": forwards(server)})
            assert_ended(through)
        assert refused(port)
        assert exchange(other, b"goes on") == b"goes on"
        wait_until(lambda: server.ends(one["trace_id"]), "the end is recorded")
        assert [end["reason"] for end in server.ends(one["trace_id"])] == ["not_allowed"]
        wait_until(lambda: "not_allowed" in reasons_on_the_box(server, one["trace_id"]), "the box has recorded it, too")


def reasons_on_the_box(server: Server, trace_id: str) -> list[str]:
    lines = server.tunnel.box.agent.log.read_text().splitlines()
    told = [json.loads(line) for line in lines if line[:1] == "{" and trace_id in line]
    return [line["reason"] for line in told if line.get("event") == "end"]


def test_a_forward_that_leads_elsewhere_keeps_its_port_and_no_connection_of_before(server: Server) -> None:
    echo, banner = forwards(server)
    port = int(echo["listen"].rpartition(":")[2])
    with running(server), server.tunnel.dial("echo") as before, server.tunnel.dial("banner") as untouched:
        assert exchange(before) == b"ping"
        server.change({"forward": [{**echo, "target": banner["target"]}, banner]})
        assert_ended(before)
        with socket.create_connection(("127.0.0.1", port), 10) as after:
            assert after.recv(100).startswith(b"SSH-2.0")
        assert untouched.recv(100).startswith(b"SSH-2.0")


def test_a_front_end_moves_to_another_address_and_cuts_nobody(server: Server) -> None:
    (port,) = free_ports(1)
    before = server.tunnel.cluster.connect_port
    with server.tunnel.cluster.dial_tls(f"{BOX}:{server.tunnel.targets['echo'].port}") as through:
        assert exchange(through) == b"ping"
        server.change({"connect": {"listen": f"127.0.0.1:{port}"}})
        wait_until(lambda: refused(before), "the old port is closed")
        assert not refused(port)
        assert exchange(through, b"on the old port") == b"on the old port"
    server.change(
        {"connect": {"listen": f"0.0.0.0:{port}"}}
    )  # the same port: one cannot be open before the other closes
    wait_until(lambda: all(part["up"] for part in server.status()["parts"]), "it listens at every address")
    assert not refused(port)


def test_a_listener_that_cannot_be_opened_is_retried_and_the_old_one_stays_until_then(server: Server) -> None:
    before = server.tunnel.cluster.connect_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server.change({"connect": {"listen": f"127.0.0.1:{port}"}})
        status = server.status()
        (part,) = [part for part in status["parts"] if part["name"] == "connect"]
        assert (part["up"], str(port) in part["fault"]) == (False, True)
        assert status["verdict"] == "warning"
        assert any(warning["code"] == "LL6002" for warning in status["warnings"])
        assert not refused(before)
    wait_until(lambda: refused(before), "the new one is open, and the old one closed", 30)
    assert not refused(port)


def test_the_ways_in_are_switched_on_and_off(server: Server) -> None:
    socks, metrics = free_ports(2)
    with running(server):
        server.change({"socks": {"listen": f"127.0.0.1:{socks}"}, "metrics": {"listen": f"127.0.0.1:{metrics}"}})
        wait_until(lambda: not refused(socks) and not refused(metrics), "both are open")
        page = server_page(metrics, "/metrics")
        assert f"longline_config_generation {server.generation()}.0" in page
        assert 'longline_agent_links_total{session="new"} 1.0' in page
        described_and_shown(page)
        figures_of_failed_handshakes(server, metrics)
        server.change({"socks": None, "metrics": None, "fleet": None})
        wait_until(lambda: refused(socks) and refused(metrics), "both are closed")
        assert refused(server.tunnel.cluster.fleet_port)
    server.change({"fleet": {"listen": f"127.0.0.1:{server.tunnel.cluster.fleet_port}"}})
    wait_until(lambda: not refused(server.tunnel.cluster.fleet_port), "the fleet API is back")
    user = tls_client(server.tunnel.cluster.fleet_port, server.tunnel.cluster.operator_tls())
    assert [agent["name"] for agent in user.get("agents")["agents"]] == [BOX]


def figures_of_failed_handshakes(server: Server, metrics: int) -> None:
    """What speaks no TLS is counted where it came in: at the ways in, and at the boxes' port."""

    def counted(listener: str) -> bool:
        line = f'longline_handshakes_failed_total{{listener="{listener}",reason="protocol"}} '
        (count,) = re.findall(f"^{re.escape(line)}(.*)$", server_page(metrics, "/metrics"), re.MULTILINE)
        return float(count) > 0

    made = server.tunnel.cluster
    for listener, port in (("fleet", made.fleet_port), ("connect", made.connect_port), ("tunnel", made.tunnel_port)):
        assert not counted(listener)
        with socket.create_connection(("127.0.0.1", port), 10) as knocking, contextlib.suppress(ConnectionResetError):
            knocking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while knocking.recv(100):
                pass
        wait_until(partial(counted, listener), f"a failed handshake is counted at {listener}")


def described_and_shown(page: str) -> None:
    """Each figure of a running server stands in docs/metrics.md, and each of that page is shown."""
    document = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    own, konnectivity = document.split("konnectivity's server")
    described = set(re.findall(r"^\| `(longline_\w+)` \|", own, re.MULTILINE))
    rows = re.findall(r"^\| (`.*?) \|", konnectivity, re.MULTILINE)
    described |= {f"konnectivity_network_proxy_server_{name}" for row in rows for name in re.findall(r"`(\w+)`", row)}
    shown = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    assert {name for name in shown if not name.endswith("_created")} == described


def server_page(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while data := sock.recv(65536):
            received += data
    return received.decode()


def test_exposed_targets_are_taken_back_under_running_streams(server: Server) -> None:
    """From the box through its `[[listen]]` to a target beside the server."""
    (port,) = free_ports(1)
    with Target("echo") as kept, Target("echo") as taken:
        rules = [{"target": f"127.0.0.1:{kept.port}", "name": "kept"}, {"target": f"127.0.0.1:{taken.port}"}]
        server.change({"expose": rules})
        (other,) = free_ports(1)
        listen = [
            {"listen": f"127.0.0.1:{port}", "target": "kept"},
            {"listen": f"127.0.0.1:{other}", "target": f"127.0.0.1:{taken.port}"},
        ]
        server.tunnel.box.configure({"listen": listen})
        server.tunnel.box.agent.stop()
        server.tunnel.restart_box()
        with socket.create_connection(("127.0.0.1", port), 10) as goes_on:
            assert exchange(goes_on) == b"ping"
            with socket.create_connection(("127.0.0.1", other), 10) as ends:
                assert exchange(ends) == b"ping"
                server.change({"expose": [rules[0]]})
                assert_ended(ends)
            assert exchange(goes_on, b"is allowed") == b"is allowed"

        def reasons() -> list[str]:
            return [line["reason"] for line in server.log("end") if line["frontend"] == "expose"]

        wait_until(lambda: "not_allowed" in reasons(), "the end is recorded")
    server.tunnel.box.configure({"listen": None})


def test_routes_are_others_for_what_comes_next(server: Server) -> None:
    port = server.tunnel.targets["echo"].port
    with running(server):
        with pytest.raises(Exception, match="no agent for node-x"):
            server.tunnel.cluster.dial(f"node-x:{port}")
        server.change({"route": [{"agent": BOX, "nodes": ["node-x"], "targets": [f"127.0.0.1:{port}"]}]})
        with server.tunnel.cluster.dial(f"127.0.0.1:{port}") as through:
            assert exchange(through) == b"ping"
            server.change({"route": None})
            # Where something leads is no permission: who may open what is asked elsewhere.
            assert exchange(through, b"goes on") == b"goes on"
            with pytest.raises(ConnectRefused, match="no agent for"):
                server.tunnel.cluster.dial(f"127.0.0.1:{port}")


@pytest.mark.e2e
def test_another_cluster_is_followed_and_then_none(server: Server, tmp_path: Path) -> None:
    """By a signal, as `systemctl reload` sends it."""
    port = server.tunnel.targets["echo"].port

    def reaches(host: str) -> bool:
        try:
            with server.tunnel.cluster.dial(f"{host}:{port}") as through:
                return exchange(through) == b"ping"
        except ConnectRefused as refusal:
            if refusal.status != 404:
                raise
            return False

    def follow(kubeconfig: Path | None) -> str:
        table = {"kubeconfig": str(kubeconfig)} if kubeconfig is not None else None
        before = server.generation()
        edit_toml(server.config, {"kubernetes": table})
        os.kill(server.tunnel.cluster.server.pid, signal.SIGHUP)
        wait_until(lambda: server.generation() > before, "the change is applied")
        config = server.status()["config"]
        assert config["needs_restart"] == []
        (changed,) = config["changed"]
        return str(changed)

    with ApiStandIn({BOX: "node.old"}) as old, ApiStandIn({BOX: "node.new"}) as new, running(server):
        assert not reaches("node.old")
        assert follow(old.kubeconfig(tmp_path / "old")).startswith("kubernetes.kubeconfig: ")
        wait_until(lambda: reaches("node.old"), "the cluster is read", 20)
        wait_until(lambda: old.watches == 4, "and watched")
        with server.tunnel.cluster.dial(f"node.old:{port}") as through:
            assert follow(new.kubeconfig(tmp_path / "new")).startswith("kubernetes.kubeconfig: ")
            wait_until(lambda: reaches("node.new"), "the other cluster is read")
            assert not reaches("node.old"), "nothing of the one before is left"
            wait_until(lambda: (old.watches, new.watches) == (0, 4), "only the other one is watched")
            assert exchange(through, b"goes on") == b"goes on"
            follow(None)
            wait_until(lambda: not reaches("node.new"), "nothing of any cluster is left")
            wait_until(lambda: new.watches == 0, "nor watched")
            assert exchange(through, b"still") == b"still"
        assert "kubernetes" not in {part["name"] for part in server.status()["parts"]}


def test_the_level_of_the_log_and_the_place_of_the_audit_records(server: Server, tmp_path: Path) -> None:
    records = tmp_path / "audit.jsonl"
    with running(server):
        server.change({"log": {"level": "debug"}, "audit": {"file": str(records)}})
        with server.tunnel.connect("echo") as through:
            assert exchange(through) == b"ping"
        wait_until(lambda: records.exists() and '"event":"end"' in records.read_text(), "the new file has the records")
    assert '"event":"open"' in records.read_text()


@pytest.mark.parametrize("how", ["rename", "link", "ConfigMap"])
def test_the_ways_in_which_a_file_is_replaced(server: Server, tmp_path: Path, how: str) -> None:
    before = server.generation()
    text = server.config.read_text()
    drained = text.replace("\n", "\n# another one\n", 1) + "\n"
    changed = ("drain_s = 7.5\n" + drained) if "drain_s" not in text else drained
    if how == "rename":
        (server.config.parent / "next").write_text(changed)
        (server.config.parent / "next").replace(server.config)
    elif how == "link":
        folder = server.config.parent
        (folder / "one.toml").write_text(text)
        (folder / "other.toml").write_text(changed)
        server.config.unlink()
        server.config.symlink_to("one.toml")
        assert server.admin.call("POST", "reload")["changed"] == []
        (folder / "next").symlink_to("other.toml")
        (folder / "next").replace(server.config)
    else:
        for name, content in (("..1", text), ("..2", changed)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "cloud-server.toml").write_text(content)
        (tmp_path / "..data").symlink_to("..1")
        (tmp_path / "cloud-server.toml").symlink_to("..data/cloud-server.toml")
        server.config.unlink()
        server.config.symlink_to(tmp_path / "cloud-server.toml")
        # What the state folder was by default is the folder of the file, and that is where its path is.
        assert server.admin.call("POST", "reload")["changed"] == []
        (tmp_path / "..next").symlink_to("..2")
        (tmp_path / "..next").replace(tmp_path / "..data")
    with running(server):
        wait_until(lambda: server.generation() > before, "the other file is applied")
    assert server.status()["config"]["changed"] == ["drain_s: 30.0 -> 7.5"]


def test_a_bad_file_changes_nothing_and_says_so_everywhere(server: Server) -> None:
    (metrics,) = free_ports(1)
    server.change({"metrics": {"listen": f"127.0.0.1:{metrics}"}})
    good, generation = server.config.read_text(), server.generation()
    with running(server):
        server.config.write_text(good.replace("[connect]", "[conect]"))
        wait_until(lambda: server.status()["config"]["fault"], "the fault is seen")
        status = server.status()
        assert (status["verdict"], status["config"]["generation"]) == ("warning", generation)
        (warning,) = [warning for warning in status["warnings"] if warning["code"] == "LL1004"]
        assert "conect" in warning["text"]
        assert warning["remedy"] == f"cloud-server check --config {server.config}"
        assert "longline_config_fault 1.0" in server_page(metrics, "/metrics")
        assert "conect" in server_page(metrics, "/readyz")
        assert "[-]config" in server_page(metrics, "/readyz?verbose")
        assert server_page(metrics, "/readyz/config").startswith("HTTP/1.1 503")
        with pytest.raises(AdminRefused, match="conect") as caught:
            server.admin.call("POST", "reload")
        assert (caught.value.status, caught.value.code) == (409, "LL1004")
        done = command_result("cloud-server", "reload", "--config", str(server.config))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error [LL1004]: ")
    server.config.write_text(good)
    wait_until(lambda: server.status()["config"]["fault"] is None, "the file is good again")
    assert server.generation() == generation
    assert "longline_config_fault 0.0" in server_page(metrics, "/metrics")
    assert run_command("cloud-server", "reload", "--config", str(server.config)) == "nothing has changed\n"


def test_what_only_a_restart_applies_is_named(server: Server) -> None:
    (port,) = free_ports(1)
    with running(server):
        server.change({"tunnel": {"listen": [f"127.0.0.1:{port}"]}, "drain_s": 12.0})
        status = server.status()
        assert [one.partition(":")[0] for one in status["config"]["needs_restart"]] == [
            "tunnel.listen",
            "tunnel.listen",
        ]
        (warning,) = [warning for warning in status["warnings"] if warning["code"] == "LL6015"]
        assert str(port) in warning["text"]
        assert refused(port)


def test_a_signal_reloads_and_systemd_is_told_from_beginning_to_end(server: Server) -> None:
    notify = server.tunnel.cluster.server.notify
    before = server.generation()
    with running(server):
        notify.forget()
        server.config.write_text("drain_s = 9.5\n" + server.config.read_text())
        os.kill(server.tunnel.cluster.server.pid, signal.SIGHUP)
        assert notify.wait("RELOADING=1", 10)
        assert notify.wait("READY=1", 10)
        assert any(state.startswith("MONOTONIC_USEC=") for state in notify.states)
        assert server.generation() > before
    assert any(line.get("why") == "SIGHUP" for line in server.log("configuration applied"))
    assert server.log("config"), "the change is in the audit log"


def test_a_client_that_resets_in_the_middle_of_changes_does_no_harm(server: Server) -> None:
    for number in range(3):
        with server.tunnel.dial("echo") as through:
            exchange(through)
            server.change({"drain_s": 20.0 + number})
            reset(through)
    assert server.status()["verdict"] == "good"
