"""The box's own say, through real processes: whom its rules are for, which addresses no rule covers, who runs which
commands as whom, and what of it is recorded.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cluster import Box, Cluster, cluster
from tests.support.connect_client import ConnectRefused
from tests.support.kubectl_user import KubectlUser
from tests.support.netns import box_namespace, missing_for_namespaces
from tests.support.processes import BIN, command_result, environment
from tests.support.tunnel import wait_until
from tests.support.waits import sooner_than

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(missing_for_namespaces() != "", reason=missing_for_namespaces() or "can be made"),
]

METADATA = "169.254.169.254"
REBOUND = "rebound.example"
"""A name that leads to METADATA on this box, as an answer of DNS might."""
PORT = 8769
SERVICE = f"""
import http.server, socketserver
socketserver.TCPServer(("{METADATA}", {PORT}), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
"""Not `-m http.server`, which looks up its own name first, and there is no DNS."""
SERVER_NAMES_IT = f"""
[[role]]
name = "metadata"
[[role.allow]]
targets = ["{METADATA}:{PORT}"]
[[binding]]
role = "metadata"
users = ["ann", "bob", "dialer"]
groups = ["system:local-process"]
"""


@dataclass
class Operator(KubectlUser):
    """Somebody with a stock kubectl."""

    kubeconfig: Path
    folder: Path

    def longline(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "longline"), words[0], "--kubeconfig", str(self.kubeconfig), *words[1:]],
            capture_output=True, text=True, env=environment(), timeout=60,
        )  # fmt: skip


@dataclass
class Site:
    """A box in a namespace of its own, with a metadata service beside it."""

    cluster: Cluster
    box: Box
    ann: Operator
    bob: Operator

    def apply(self, **changes: Any) -> None:
        seen = len(self.box.agent.log_text())
        self.box.configure(changes)
        self.box.agent.wait_for_log("configuration applied", after=seen)

    def records(self, event: str) -> list[dict[str, Any]]:
        lines = self.box.agent.log_text().splitlines()
        return [record for line in lines if line.startswith("{") and (record := json.loads(line))["event"] == event]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hosts = tmp_path_factory.mktemp("box") / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{METADATA} {REBOUND}\n")
    with box_namespace() as namespace, cluster(host=namespace.host_address) as made:
        namespace.run("ip", "addr", "add", f"{METADATA}/32", "dev", "lo")
        service = subprocess.Popen(
            namespace.command([sys.executable, "-c", SERVICE]),
            cwd=hosts.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            # What is tested is the box's say: the server names the address.
            made.policy.write_text(made.policy.read_text() + SERVER_NAMES_IT)
            made.start()
            inside = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]
            box = made.join("box-7", prefix=namespace.command(inside), host={"exec": True})
            made.start_box("box-7")
            operators = [Operator(made.kubeconfig(name), made.folder) for name in ("ann", "bob")]
            wait_until(lambda: b"Running" in operators[0].run_kubectl("get", "pod", "box-7").stdout, "the box is a pod")
            yield Site(made, box, *operators)
        finally:
            service.kill()
            service.wait()


def answer(site: Site, host: str) -> bytes:
    """What the metadata service says, asked for through the box."""
    with site.cluster.dial(f"{host}.box-7.longline:{PORT}") as sock:
        sock.sendall(b"GET /hosts HTTP/1.0\r\n\r\n")
        received = b""
        while data := sock.recv(65536):
            received += data
        return received


def test_no_range_and_no_name_leads_to_a_metadata_service(site: Site) -> None:
    wide = ["0.0.0.0/0:*", "169.254.0.0/16:*", f"{REBOUND}:*", "[::/0]:*"]
    site.apply(allow=[{"target": target} for target in wide])
    for host in (REBOUND, METADATA, "2852039166"):
        with pytest.raises(ConnectRefused, match="LL4111") as refused:
            answer(site, host)
        assert METADATA in str(refused.value)
    assert {record["code"] for record in site.records("refused")} == {"LL4111"}
    site.apply(allow=[{"target": target} for target in (*wide, f"{METADATA}:{PORT}")])
    for host in (METADATA, REBOUND):
        assert REBOUND.encode() in answer(site, host)


def test_a_rule_is_for_its_users_and_no_others_and_a_reload_ends_what_it_had(site: Site) -> None:
    """kubectl port-forward as two users; the socket's own principal is a local process and in its group."""
    site.apply(allow=[{"target": "127.0.0.1:1-65535", "users": ["ann"]}])
    with pytest.raises(ConnectRefused, match=r"LL4110.*the rule 127\.0\.0\.1:1-65535.* is for others"):
        site.cluster.dial(f"box-7:{PORT}")
    site.apply(allow=[{"target": f"{METADATA}:{PORT}", "groups": ["system:local-process"]}])
    target = f"{METADATA}.box-7.longline:{PORT}"
    with site.cluster.dial(target) as held:
        held.sendall(b"GET / HTTP/1.0\r\n")  # and no end of its head: it stays open
        with sooner_than(3, "the end of what is for others now"):
            site.apply(allow=[{"target": f"{METADATA}:{PORT}", "users": ["ann"]}])
            with contextlib.suppress(ConnectionResetError):
                assert held.recv(1) == b""
    # A user by certificate, over TLS: `dialer` is not ann, and may be named.
    with pytest.raises(ConnectRefused, match="LL4110"):
        site.cluster.dial_tls(target)
    site.apply(allow=[{"target": f"{METADATA}:{PORT}", "users": ["dial*"]}])
    site.cluster.dial_tls(target).close()


def test_ports_of_kubectl_are_for_whom_the_rule_is(site: Site) -> None:
    site.apply(allow=[{"target": f"127.0.0.1:{PORT}", "users": ["ann"]}])
    for operator, told in ((site.ann, "connection refused"), (site.bob, f"127.0.0.1:{PORT}")):
        with operator.follow("port-forward", "box-7", f":{PORT}") as forward:
            assert forward.stdout is not None
            port = int(forward.stdout.readline().split(" -> ")[0].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), 10) as sock, contextlib.suppress(ConnectionResetError):
                sock.recv(1)
            line = next(line for line in forward.stdout if "error forwarding port" in line)
        assert told in line  # nothing listens there, which only ann is told
        assert ("for others, not for user:bob" in line) is (operator is site.bob)


EXEC = [
    {"users": ["bob"], "account": "nobody", "commands": ["id -un", "cat /etc/host*"]},
    {"users": ["ann"], "account": "root"},
]


def test_commands_by_user_account_and_list(site: Site) -> None:
    site.apply(host={"exec": EXEC})
    assert site.ann.kubectl("exec", "box-7", "--", "id", "-un") == "root\n"
    assert site.bob.kubectl("exec", "box-7", "--", "id", "-un") == "nobody\n"
    assert "localhost" in site.bob.kubectl("exec", "box-7", "--", "cat", "/etc/hosts")
    for command in (
        ["sh"],
        ["sh", "-c", "id -un"],
        ["cat", "/etc/host/../shadow"],
        ["cat", "/etc/hosts", "/etc/shadow"],
    ):
        refused = site.bob.run_kubectl("exec", "box-7", "--", *command)
        assert refused.returncode != 0
        assert b"LL5030" in refused.stderr, refused.stderr
        assert (
            b"this box runs other commands than this for user:bob, only: 'id -un', 'cat /etc/host*'" in refused.stderr
        )
    by_tool = site.bob.longline("exec", "box-7", "--", "sh")
    assert (by_tool.returncode, "LL5030" in by_tool.stderr) == (255, True)
    last = site.records("refused")[-1]
    assert (last["kind"], last["who"], last["code"], last["command"]) == ("user", "bob", "LL5030", ["sh"])
    assert last["proof"].startswith("certificate:")
    # Taken away while it runs.
    with site.ann.follow("exec", "box-7", "--", "sh", "-c", "echo begun; exec sleep 60") as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "begun\n"
        with sooner_than(3, "the end of a command that is not allowed"):
            site.apply(host={"exec": EXEC[:1]})
            assert shell.wait(10) != 0


def test_a_session_is_recorded_and_played_also_after_a_crash(site: Site) -> None:
    site.apply(host={"exec": True, "recording": {"mode": "always"}})
    folder = site.box.state / "recordings"
    with site.ann.shell("exec", "-it", "box-7", "--", "sh", size=(30, 100)) as shell:
        shell.type("stty -echo; echo re''ady\n")
        shell.expect("ready")
        shell.type("read secret\n")
        shell.type("hunter2\n")
        shell.resize(40, 120)
        shell.type("echo siz''ed; exit\n")
        shell.expect("sized")
        assert shell.wait() == 0
    (path,) = folder.glob("*.cast")
    header, *events = map(json.loads, path.read_text().splitlines())
    assert (header["version"], header["title"]) == (2, "user:ann: sh")
    # A client that is slow to tell its size has a header with the usual one, and then its own.
    sizes = [f"{header['width']}x{header['height']}", *(data for _, kind, data in events if kind == "r")]
    assert [size for size in sizes if size != "80x24"] == ["100x30", "120x40"]
    assert "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600

    listed = site.ann.longline("recordings", "box-7", "-o", "name").stdout
    assert listed == f"box-7:{path.stem}\n"
    played = site.ann.longline("play", listed.strip(), "--idle-limit", "0", "--speed", "100")
    dumped = site.ann.longline("play", str(path), "--dump")
    assert played.stdout == dumped.stdout
    assert {"ready", "sized"} <= set(dumped.stdout.replace("# ", "").split())
    assert "user:ann: sh" in site.ann.longline("recordings", "box-7").stdout
    unknown = site.ann.longline("play", "box-7:20200101T000000Z-00000000")
    assert (unknown.returncode, "LL1070" in unknown.stderr) == (1, True)
    assert site.ann.kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/box-7/recordings?id={path.stem}") == (
        path.read_text()
    )

    # A crash in the middle of another one.
    with site.ann.shell("exec", "-it", "box-7", "--", "sh") as shell:
        shell.type("echo bef''ore\n")
        shell.expect("before")
        for process in reversed(psutil.Process(site.box.agent.pid).children(recursive=True)):
            process.send_signal(signal.SIGKILL)
        site.box.agent.kill()
    crashed = max(folder.glob("*.cast"), key=lambda file: file.stat().st_mtime)
    assert crashed != path
    dumped = site.ann.longline("play", str(crashed), "--dump")
    assert (dumped.returncode, "before" in dumped.stdout) == (0, True)
    site.cluster.start_box("box-7")


ACCOUNTS = """
[cloud]
servers = ["cloud.example.com:7443"]
[[host.exec]]
account = "root"
[[host.exec]]
account = "nobody"
"""


def test_check_says_which_accounts_the_box_cannot_become() -> None:
    with tempfile.TemporaryDirectory(prefix="longline-check-") as folder:
        Path(folder).chmod(0o755)
        config = Path(folder) / "edge-agent.toml"
        config.write_text(ACCOUNTS)
        done = command_result(
            "edge-agent", "check", "--config", str(config),
            prefix=["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"],
        )  # fmt: skip
    warned = [line for line in done.stderr.splitlines() if "host.exec.account" in line]
    (line,) = warned
    assert 'only root can run commands as "root"; set host.runner, run the agent as root or name "nobody"' in line
