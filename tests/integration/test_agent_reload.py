"""A running agent follows its file: what is still allowed goes on, what is not ends, a bad file is told."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_status import status_of, wait_for_node
from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.processes import command_result, run_command
from tests.support.targets import Target
from tests.support.tunnel import Tunnel, exchange, tunnel, wait_until
from tests.support.waits import sooner_than


@pytest.fixture(scope="module")
def up() -> Iterator[Tunnel]:
    """For tests that leave the box with what it has at first."""
    with tunnel(["echo"]) as made:
        yield made


def allow(made: Tunnel, *targets: str) -> None:
    made.box.configure({"allow": [{"target": target} for target in targets]})


def applied(made: Tunnel, seen: int) -> str:
    return made.box.agent.wait_for_log("configuration applied", after=seen)


def records(made: Tunnel, event: str, seen: int) -> list[dict[str, Any]]:
    lines = made.box.agent.log_text()[seen:].splitlines()
    return [record for line in lines if line.startswith("{") and (record := json.loads(line))["event"] == event]


def test_what_is_not_allowed_any_more_ends_within_a_second_and_all_else_goes_on(up: Tunnel) -> None:
    echo = f"127.0.0.1:{up.targets['echo'].port}"
    with Target("echo") as second:
        seen = len(up.box.agent.log_text())
        allow(up, echo, f"127.0.0.1:{second.port}")
        applied(up, seen)
        with up.connect("echo") as kept, up.cluster.dial(f"{up.box.name}:{second.port}") as gone:
            assert exchange(kept) == exchange(gone) == b"ping"
            session = status_of(up.box)[1]["session"]
            seen = len(up.box.agent.log_text())
            with sooner_than(3, "the end of what is not allowed"):
                allow(up, echo)
                with contextlib.suppress(ConnectionResetError):
                    assert gone.recv(1) == b""
            assert exchange(kept) == b"ping"
            with pytest.raises(ConnectRefused, match="403"):
                up.cluster.dial(f"{up.box.name}:{second.port}")
    up.box.agent.wait_for_log('"reason":"not_allowed"', after=seen)
    (end,) = [one for one in records(up, "end", seen) if one["reason"] == "not_allowed"]
    assert end["text"].endswith("is not allowed any more at this end")
    assert (end["bytes_to_agent"], end["bytes_from_agent"]) == (4, 4)
    assert status_of(up.box)[1]["session"] == session
    up.cluster.server.wait_for_log("not_allowed")


@dataclass
class Operator(KubectlUser):
    """Somebody with a stock kubectl."""

    kubeconfig: Path
    folder: Path


@pytest.mark.e2e
def test_ports_commands_and_logs_of_kubectl_end_too(up: Tunnel) -> None:
    operator = Operator(up.cluster.kubeconfig(), up.cluster.folder)
    log = up.cluster.folder / "app.log"
    log.write_text("begun\n")
    echo = up.targets["echo"].port
    host = {"exec": True, "user": pwd.getpwuid(os.geteuid()).pw_name, "files": [str(log)]}
    up.box.configure({"host": host})
    wait_until(lambda: b"Running" in operator.run_kubectl("get", "pod", up.box.name).stdout, "the box is a pod")
    with contextlib.ExitStack() as stack:
        forward, shell, following = (
            stack.enter_context(operator.follow(*words))
            for words in (
                ("port-forward", up.box.name, f":{echo}"),
                ("exec", up.box.name, "-c", "host", "--", "sh", "-c", "echo begun; exec sleep 60"),
                ("logs", "-f", up.box.name, "-c", "app.log"),
            )
        )
        port = int(line_of(forward).split(" -> ")[0].rpartition(":")[2])
        forwarded = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        assert line_of(shell) == line_of(following) == "begun\n"
        assert exchange(forwarded) == b"ping"
        seen = len(up.box.agent.log_text())
        with sooner_than(3, "the end of a port that is not allowed"):
            allow(up, "127.0.0.1:1")
            with contextlib.suppress(ConnectionResetError):
                assert forwarded.recv(1) == b""
        text = f"localhost:{echo} is not allowed any more at this end"
        assert f"error forwarding port {echo} to pod {up.box.name}, uid : {text}" in line_of(forward, "error")
        assert (shell.poll(), following.poll()) == (None, None)
        allow(up, f"127.0.0.1:{echo}")
        with sooner_than(3, "the end of what is not offered"):
            up.box.configure({"host": None})
            assert shell.wait(10) != 0
            following.wait(10)
    wait_until(lambda: len(records(up, "end", seen)) == 3, "all are recorded")
    ends = {one.get("target") or one["container"]: one for one in records(up, "end", seen)}
    assert {one["reason"] for one in ends.values()} == {"not_allowed"}
    assert ends[f"localhost:{echo}"]["text"] == text
    for name in ("host", "app.log"):
        assert ends[name]["text"] == f"{name} is not offered any more by [host] of this box"


def line_of(process: subprocess.Popen[str], having: str = "") -> str:
    """The next line of what it prints that has this."""
    assert process.stdout is not None
    while line := process.stdout.readline():
        if having in line:
            return line
    raise AssertionError("it ended")


def test_labels_and_services_reach_the_server_in_the_session_that_there_is(up: Tunnel) -> None:
    session = status_of(up.box)[1]["session"]
    echo = f"127.0.0.1:{up.targets['echo'].port}"
    up.box.configure({"labels": {"site": "lyon"}, "allow": [{"target": echo, "service": "web"}]})
    wait_for_node(
        up.cluster, up.box.name, lambda node: node["metadata"]["labels"].get("longline/site") == "lyon", "the label"
    )
    with up.cluster.dial(f"{up.box.name}:web") as sock:
        assert exchange(sock) == b"ping"
    up.box.configure({"labels": None, "allow": [{"target": echo}]})
    wait_for_node(
        up.cluster, up.box.name, lambda node: "longline/site" not in node["metadata"]["labels"], "the label is gone"
    )
    assert status_of(up.box)[1]["session"] == session


def test_a_bad_file_keeps_the_one_before_and_says_so(up: Tunnel) -> None:
    good = up.box.config.read_text()
    seen = len(up.box.agent.log_text())
    up.box.config.write_text(good + "\n[[allow]]\ntarget = 'nonsense'\n")
    up.box.agent.wait_for_log("the configuration cannot be used, the one before stays", after=seen)
    code, status = status_of(up.box)
    assert (code, status["verdict"]) == (1, "warning")
    assert "allow[1].target: 'nonsense' has no port" in status["config"]["fault"]
    asked = command_result("edge-agent", "reload", "--config", str(up.box.config))
    assert (asked.returncode, "the configuration before stays" in asked.stderr) == (1, True)
    with up.connect("echo") as sock:
        assert exchange(sock) == b"ping"
    wait_for_node(
        up.cluster,
        up.box.name,
        lambda node: any("LL1004" in one["message"] for one in node["status"]["conditions"] if one["status"] == "True"),
        "the server's users are told",
    )
    up.box.config.write_text(good)
    wait_until(lambda: status_of(up.box)[0] == 0, "all is well again")


def test_it_follows_links_as_kubernetes_swaps_them_and_signals_and_the_command(up: Tunnel) -> None:
    text = up.box.config.read_text()
    folder = up.box.state / "mounted"
    for number in (1, 2):
        data = folder / f"..2026_{number}"
        data.mkdir(parents=True)
        (data / "edge-agent.toml").write_text(f"{text}\n[labels]\nnumber = '{number}'\n")
    (folder / "..data").symlink_to("..2026_1")
    up.box.config.unlink()
    up.box.config.symlink_to(folder / "..data" / "edge-agent.toml")
    wait_until(lambda: "number" in str(status_of(up.box)[1]["config"]["changed"]), "the link is followed")
    (folder / "new").symlink_to("..2026_2")
    (folder / "new").rename(folder / "..data")
    wait_until(lambda: '"1" -> "2"' in str(status_of(up.box)[1]["config"]["changed"]), "the swap is seen")
    seen = len(up.box.agent.log_text())
    up.box.config.unlink()
    up.box.config.write_text(text)
    up.box.agent.send(signal.SIGHUP)
    assert "labels.number" in applied(up, seen)
    assert up.box.agent.running
    assert run_command("edge-agent", "reload", "--config", str(up.box.config)) == "nothing has changed\n"


def test_what_needs_a_restart_is_named(up: Tunnel) -> None:
    up.box.configure({"log": {"format": "console", "level": "debug"}})
    try:
        wait_until(lambda: status_of(up.box)[1]["config"]["needs_restart"], "it is named")
        code, status = status_of(up.box)
        assert status["config"]["needs_restart"] == ['log.format: "auto" -> "console"']
        assert (code, status["log_level"]) == (1, "debug")  # which needs none
        told = run_command_text(up)
        assert "needs a restart: log.format" in told
        assert "systemctl restart edge-agent" in told
    finally:
        up.box.configure({"log": None})
    wait_until(lambda: status_of(up.box)[0] == 0, "as it was")
    assert status_of(up.box)[1]["log_level"] == "info"


def run_command_text(made: Tunnel) -> str:
    return command_result("edge-agent", "status", "--config", str(made.box.config)).stdout


def test_ports_open_and_close_and_the_page_of_metrics_tells(up: Tunnel) -> None:
    page, port = free_ports(2)
    up.box.configure(
        {"metrics": {"listen": f"127.0.0.1:{page}"}, "listen": [{"listen": f"127.0.0.1:{port}", "target": "none"}]}
    )
    wait_until(lambda: [part["up"] for part in status_of(up.box)[1]["parts"]] == [True] * 3, "both are open")
    with up.connect("echo") as sock:
        assert exchange(sock) == b"ping"
    figures = fetch(page, "/metrics")
    for line in (
        "longline_agent_connected 1.0",
        'longline_agent_links_total{resumed="false"} 1.0',
        f'longline_agent_part_up{{part="listen 127.0.0.1:{port}"}} 1.0',
        "longline_agent_config_fault 0.0",
        "longline_agent_log_lines_lost_total 0.0",
    ):
        assert line in figures.splitlines()
    assert 'longline_agent_certificate_days_left{certificate="agent"} 6.9' in figures
    assert 'longline_agent_stream_bytes_total{direction="to_agent",service="tcp"}' in figures
    assert fetch(page, "/readyz") == "ok\n"
    up.box.configure({"metrics": None, "listen": None})
    wait_until(lambda: len(status_of(up.box)[1]["parts"]) == 1, "both are closed")
    with pytest.raises(OSError, match="refused"):
        fetch(page, "/livez")


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.e2e
def test_a_bad_host_section_takes_no_link_down() -> None:
    with cluster() as made:
        made.start()
        box = made.join("box-8", host={"exec": True, "units": ["*.service"]})
        assert command_result("edge-agent", "check", "--config", str(box.config)).returncode == 2
        made.start_box("box-8")
        code, status = status_of(box)
        assert (code, status["verdict"]) == (1, "warning")
        assert [fact["code"] for fact in status["facts"]] == ["LL1030"]
        assert "not the name of a systemd unit" in status["line"]
        box.configure({"host": {"exec": False, "units": ["nginx.service"]}})
        wait_until(lambda: status_of(box)[0] == 0, "the mended section is taken")


@pytest.mark.e2e
def test_a_box_that_was_turned_away_dials_seldom_and_at_once_after_a_new_join() -> None:
    with cluster() as made:
        made.start()
        box = made.join("box-9")
        made.start_box("box-9")
        seen = len(made.server.log_text())
        revoke(made, "box-9")
        box.agent.wait_for_log("cannot connect", 15)
        wait_until(lambda: "was revoked" in str(status_of(box)[1]["servers"]), "the cause is shown")
        code, status = status_of(box)
        assert (code, status["verdict"]) == (2, "bad")
        refused = made.server.log_text()[seen:].count("agent refused")
        token = made.token("box-9")
        with sooner_than(12, "dialling with the new certificate"):  # else up to 15 s, and then up to 30
            where = ["--server", made.tunnel_address, "--token-file", str(token), "--state", str(box.state)]
            run_command("edge-agent", "join", *where)
            wait_until(lambda: status_of(box)[1]["verdict"] == "good", "the new certificate is used", 12)
        assert made.server.log_text()[seen:].count("agent refused") - refused <= 1


def revoke(made: Cluster, name: str) -> None:
    run_command("cloud-server", "agent", "revoke", "--config", str(made.config), name)
