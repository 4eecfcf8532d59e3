"""A server's policy: none at the start, made and followed while it runs, bad files, what ends with a change."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.connect_client import ConnectRefused
from tests.support.processes import command_result, run_command
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel, wait_until
from tunnel.aio.operate.admin_client import unix_client

pytestmark = pytest.mark.e2e

OPERATORS = """\
[[role]]
name = "operators"
[[role.allow]]
agents = ["box-*"]
[[role.deny]]
name = "no-web"
targets = ["*:80"]
[[binding]]
role = "operators"
users = ["dialer"]
[[binding]]
role = "viewer"
users = ["admin"]
"""


class Server:
    """The server of a tunnel, and its policy."""

    def __init__(self, made: Tunnel) -> None:
        self.tunnel = made
        self.cluster = made.cluster
        self.admin = unix_client(self.cluster.config.parent / "admin.sock")

    def policy(self) -> dict[str, Any]:
        policy: dict[str, Any] = self.admin.get("status")["policy"]
        return policy

    def write(self, text: str) -> list[str]:
        """Replaces the file, and waits until the server goes by it; returns what changed."""
        before = self.policy()["generation"]
        beside = self.cluster.policy.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.cluster.policy)
        wait_until(lambda: self.policy()["generation"] > before, "the policy is applied")
        changed: list[str] = self.policy()["changed"]
        return changed

    def dial(self) -> socket.socket:
        """As the user `dialer`, through CONNECT over TLS."""
        return self.cluster.dial_tls(f"{BOX}:{self.tunnel.targets['echo'].port}")

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = [line for line in self.cluster.server.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in map(json.loads, lines) if line.get("event") == event]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tunnel(["echo"]) as made:
        yield Server(made)


@pytest.fixture(autouse=True)
def everybody_may_all(server: Server) -> None:
    """Each test begins so."""
    server.cluster.bind()
    server.cluster.configure({"policy": None})
    if not server.cluster.server.running:
        server.cluster.start()
    server.admin.call("POST", "reload")
    wait_until(lambda: server.admin.get("status")["agents"]["connected"], "the box is there")


def ends(sock: socket.socket) -> bool:
    """Whether a connection ends. Python takes what breaks off below TLS for an end, too: the records say which."""
    sock.settimeout(10)
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def refusal(server: Server) -> str:
    with pytest.raises(ConnectRefused) as caught:
        server.dial().close()
    return str(caught.value)


def test_a_change_of_the_file_ends_what_it_does_not_allow_and_nothing_else(server: Server) -> None:
    with server.dial() as mine, server.tunnel.dial("echo") as forwarded:
        assert (exchange(mine), exchange(forwarded)) == (b"ping", b"ping")
        changed = server.write(OPERATORS)
        assert "role operators: added, with 2 rules" in changed
        assert "binding of user dialer to operators: added" in changed
        assert "binding of user dialer to admin: removed" in changed
        assert exchange(mine) == b"ping", "another rule allows it"
        server.write(OPERATORS.replace("box-*", "site-*"))
        assert ends(mine)
        assert "default deny" in refusal(server)
        assert exchange(forwarded) == b"ping", "a forward is no user"
    wait_until(lambda: server.log("policy applied"), "it is in the log")
    assert [record for record in server.log("policy") if "role operators: added, with 2 rules" in record["changed"]]

    wait_until(
        lambda: any(end.get("reason") == "standing_lost" and end["who"] == "dialer" for end in server.log("end")),
        "why it ended is recorded",
    )


def test_what_is_recorded_names_the_rule(server: Server) -> None:
    server.write(OPERATORS)
    with server.dial() as mine:
        assert exchange(mine) == b"ping"
    wait_until(
        lambda: any(record["rule"] == "operators.allow[0]" for record in server.log("open")), "the start is recorded"
    )


def test_a_bad_file_changes_nothing_and_is_told(server: Server) -> None:
    before = server.policy()["generation"]
    server.cluster.policy.write_text(OPERATORS + "[[test]]\nuser = 'eve'\ntarget = 'a:1'\nexpect = 'allow'\n")
    wait_until(lambda: server.policy()["fault"], "the fault is seen")
    assert "the test expects allow, but it is denied by default deny" in server.policy()["fault"]
    assert server.policy()["generation"] == before
    with server.dial() as mine:
        assert exchange(mine) == b"ping"
    warning = next(one for one in server.admin.get("status")["warnings"] if one["code"] == "LL1061")
    assert "policy check" in warning["remedy"]
    server.cluster.server.wait_for_log("LL1061")
    done = command_result("cloud-server", "reload", "--config", str(server.cluster.config))
    assert done.returncode == 1
    assert "LL1061" in done.stderr
    checked = command_result("cloud-server", "policy", "check", "--config", str(server.cluster.config))
    assert (checked.returncode, "policy.toml:14: test[0]" in checked.stderr) == (2, True)


def test_sighup_and_the_reload_command_read_it(server: Server) -> None:
    server.cluster.policy.write_text(OPERATORS)
    done = run_command("cloud-server", "reload", "--config", str(server.cluster.config))
    assert server.policy()["changed"], "whether by the command or by following the file"
    assert "policy changed: role operators: added" in done or "nothing has changed" in done
    generation = server.policy()["generation"]
    server.cluster.policy.write_text(OPERATORS.replace("box-*", "box-7"))
    server.cluster.server.send(signal.SIGHUP)
    wait_until(lambda: server.policy()["generation"] > generation, "SIGHUP is heard")


def test_explain_says_the_same_offline_and_of_the_running_server(server: Server) -> None:
    server.write(OPERATORS.replace('"viewer"', '"admin"'))  # who asks for others
    asked = ["--user", "dialer", "--agent", BOX, "--target", "127.0.0.1:80"]
    admin = ["--socket", str(server.cluster.config.parent / "admin.sock")]
    offline = run_command("cloud-server", "policy", "explain", "--config", str(server.cluster.config), *asked)
    running = run_command(
        "longline", "policy", "explain", "--socket", str(server.cluster.config.parent / "admin.sock"), *asked
    )
    assert offline == running
    assert offline.splitlines()[0] == "denied by no-web"
    assert "matched  allow operators.allow[0] (role operators, by user dialer)" in offline
    as_json = run_command(
        "longline", "policy", "explain", "--kubeconfig", str(server.cluster.kubeconfig()), "-o", "json",
        "--user", "dialer", "--agent", BOX, "--verb", "exec", "--unit", "host",
    )  # fmt: skip
    assert (json.loads(as_json)["rule"], json.loads(as_json)["asked"]["frontend"]) == ("operators.allow[0]", "fleet")
    done = command_result("longline", "policy", "explain", *admin)
    assert done.returncode != 0
    assert "LL1063" in done.stderr
    shown = run_command("cloud-server", "policy", "show", "--config", str(server.cluster.config))
    assert 'deny   name = "no-web", targets = ["*:80"]' in shown


def test_another_file_by_the_configuration(server: Server) -> None:
    other = server.cluster.policy.with_name("other.toml")
    other.write_text(OPERATORS.replace("box-*", "site-*"))
    with server.dial() as mine:
        assert exchange(mine) == b"ping"
        server.cluster.configure({"policy": {"file": str(other)}})
        assert ends(mine)
    assert server.policy()["path"] == str(other)
    server.cluster.configure({"policy": None})
    wait_until(lambda: server.policy()["path"] == str(server.cluster.policy), "the usual file is followed again")


def test_without_a_file_users_may_nothing_until_there_is_one(server: Server) -> None:
    server.cluster.server.stop()
    server.cluster.policy.unlink()
    checked = command_result("cloud-server", "check", "--config", str(server.cluster.config))
    assert "there is no policy" in checked.stderr
    server.cluster.start()
    wait_until(lambda: server.admin.get("status")["agents"]["connected"], "the box is back")
    assert "LL4101" in refusal(server)
    with server.tunnel.dial("echo") as forwarded:
        assert exchange(forwarded) == b"ping"
    (warning,) = [one for one in server.admin.get("status")["warnings"] if one["code"] == "LL1060"]
    assert "cloud-server policy init --admin NAME" in warning["remedy"]
    server.cluster.server.wait_for_log("LL1060")
    config = ["--config", str(server.cluster.config)]
    run_command("cloud-server", "policy", "init", "--admin", "dialer", *config)
    wait_until(lambda: server.policy()["fault"] is None, "the new file is seen")
    with server.dial() as mine:
        assert exchange(mine) == b"ping"
    again = command_result("cloud-server", "policy", "init", "--admin", "eve", *config)
    assert (again.returncode, "LL1062" in again.stderr) == (1, True)


def test_a_server_does_not_start_on_a_bad_file(server: Server) -> None:
    """What it forbids is not known."""
    server.cluster.server.stop()
    server.cluster.policy.write_text("[[rolle]]\n")
    done = command_result("cloud-server", "run", "--config", str(server.cluster.config))
    assert done.returncode == 1
    assert "LL1061" in done.stderr
    assert "did you mean role?" in done.stderr
    server.cluster.bind()
    server.cluster.start()
