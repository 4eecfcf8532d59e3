"""The agent is an account of its own, and another service runs commands as others: what people see of it, and what
somebody gets who has taken the agent. The service manager is a stand-in: there is none in these tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge_agent.hostkubelet.run_elsewhere import NOT_STARTED
from tests.support.accounts import as_account, needs_root
from tests.support.cluster import Cluster, cluster
from tests.support.processes import BIN, environment
from tests.support.pty_session import PtySession
from tests.support.socket_unit import SocketUnit
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s

pytestmark = [pytest.mark.e2e, needs_root]

AGENT, STRANGER = 61011, 61012
CLIENT = Path(__file__).parents[2] / "edge_agent/hostkubelet/run_elsewhere.py"
STAND_IN = Path(__file__).parents[1] / "support/systemd_stand_in.py"


class Place:
    def __init__(self, cloud: Cluster, unit: SocketUnit, kept: Path, socket: Path) -> None:
        self.cloud, self.unit, self.kept, self.socket = cloud, unit, kept, socket
        self.kubeconfig = str(cloud.kubeconfig())

    def run(self, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "longline"), "exec", "--kubeconfig", self.kubeconfig, *(["-i"] if stdin else []), "box-7"]
        return subprocess.run(
            [*command, "--", *argv], input=stdin, capture_output=True, text=True, env=environment(),
            timeout=scaled_s(30),
        )  # fmt: skip

    def taken(self, uid: int, account: str) -> subprocess.CompletedProcess[str]:
        """What the service says to somebody who is an account, and asks for another."""
        command = [sys.executable, "-I", "-S", str(CLIENT), str(self.socket), account, "id"]
        return subprocess.run(
            [*as_account(uid, self.kept), *command], capture_output=True, text=True, env=environment(),
            timeout=scaled_s(30),
        )  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(cluster())
        cloud.folder.chmod(0o755)
        kept, programs = cloud.folder / "kept", cloud.folder / "bin"
        kept.mkdir()
        programs.mkdir()
        for name in ("systemd-run", "systemctl"):
            (programs / name).write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
            (programs / name).chmod(0o755)
        socket = cloud.folder / "commands.sock"
        argv = ["edge-agent", "commands", "--account", "nobody", "--user", str(AGENT)]
        path = f"PATH={programs}:{os.environ['PATH']}"
        unit = stack.enter_context(SocketUnit(socket, argv, cloud.folder / "commands.log", prefix=["env", path]))
        cloud.start()
        box = cloud.join("box-7", host={"exec": True, "user": "nobody", "runner": str(socket)})
        for each in (box.state, *box.state.iterdir()):
            os.chown(each, AGENT, AGENT)
        Path(box.agent.notify.path).parent.chmod(0o711)
        box.agent.go_through(*as_account(AGENT, kept))
        cloud.start_box("box-7")
        yield Place(cloud, unit, kept, socket)


def test_a_command_runs_as_the_account_and_ends_as_ever(place: Place) -> None:
    assert psutil.Process(place.cloud.boxes["box-7"].agent.pid).uids().real == AGENT
    assert place.run("id", "-un").stdout == "nobody\n"
    done = place.run("sh", "-c", "cat; echo out; echo err >&2; exit 7", stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\nout\n", "err\n")
    # The service manager has variables, too; these are the command's.
    assert place.run("sh", "-c", 'echo "$USER $0 $$x" "$1"', "$HOME", "$USER$$").stdout.startswith("nobody $HOME ")
    assert place.run("echo", "$HOME ${USER} $$").stdout == "$HOME ${USER} $$\n"
    assert place.run("no-such-program").returncode == 127


def test_a_terminal_is_the_accounts(place: Place) -> None:
    argv = [str(BIN / "longline"), "exec", "--kubeconfig", place.kubeconfig, "-it", "box-7", "--", "sh"]
    with PtySession(argv, env=environment(), size=(33, 77)) as session:
        session.type("stty size; id -un; tty >/dev/null && echo on $((40 + 2))\n")
        session.expect(r"33 77")
        session.expect(r"nobody")
        session.expect(r"on 42")
        session.resize(20, 50)
        session.type("echo be''gun; sleep 100\n")
        session.expect(r"begun")
        session.type("\x03")  # Ctrl-C: the terminal is its controlling one
        session.expect(r"\^C")
        session.expect(r"\$ ")
        session.type("stty size; exit 3\n")
        session.expect(r"20 50")


def test_nothing_is_left_when_the_client_goes(place: Place) -> None:
    argv = [str(BIN / "longline"), "exec", "--kubeconfig", place.kubeconfig, "box-7", "--"]
    script = "trap '' HUP; echo begun; sleep 4321 & wait; sleep 4321"
    with subprocess.Popen([*argv, "sh", "-c", script], stdout=subprocess.PIPE, env=environment()) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == b"begun\n"
            wait_until(sleeping, "its child has begun, too")
        finally:
            client.kill()
    wait_until(lambda: not sleeping(), "it was killed, though it ignores SIGHUP", 20)


def sleeping() -> list[int]:
    return [one.pid for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "4321"]]


@pytest.mark.parametrize(
    ("uid", "account", "text"),
    [
        (AGENT, "root", "nothing runs as 'root' here"),
        (AGENT, "daemon", "nothing runs as 'daemon' here"),
        (STRANGER, "nobody", "this account may run no commands"),
    ],
)
def test_who_has_taken_the_agent_becomes_no_other_account(place: Place, uid: int, account: str, text: str) -> None:
    done = place.taken(uid, account)
    assert (done.returncode, done.stdout, text in done.stderr) == (NOT_STARTED, "", True), done


def test_rubbish_is_refused_and_holds_nobody_up(place: Place) -> None:
    program = """
import array, contextlib, json, socket, sys
good = json.dumps({"account": "nobody", "argv": ["id"], "tty": False, "shell": ""}).encode()
odd = [(len(good), good, 0), (len(good), good, 2)]
odd += (2**31, b"", 3), (9, b"{}" * 5, 3), (2, b"{}", 0), (2, b"{}", 2), (4, b"null", 3), (1, b"", 16)
for size, text, pipes in odd:
    one = socket.socket(socket.AF_UNIX); one.settimeout(60); one.connect(sys.argv[1])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [2] * pipes))] if pipes else []
    one.sendmsg([size.to_bytes(4, "big")], rights)
    with contextlib.suppress(OSError):
        one.sendall(text)
        one.shutdown(socket.SHUT_WR)
    print("refused" in json.loads(one.makefile("rb").readline()))
"""
    command = [*as_account(AGENT, place.kept), sys.executable, "-c", program, str(place.socket)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=scaled_s(90))
    assert done.stdout.split() == ["True"] * 8, done.stderr
    assert psutil.Process(place.unit.pid).num_fds() < 20
    assert place.run("id", "-un").stdout == "nobody\n"


def test_without_the_service_it_is_said(place: Place) -> None:
    place.socket.rename(place.socket.with_suffix(".away"))
    try:
        done = place.run("id")
        assert (done.returncode, "which cannot be asked: No such file" in done.stderr) == (NOT_STARTED, True), done
    finally:
        place.socket.with_suffix(".away").rename(place.socket)


@pytest.mark.skipif(shutil.which("systemd-run") is None, reason="systemd is not installed")
def test_the_real_program_understands_the_options() -> None:
    from edge_agent.hostkubelet.account import Account
    from edge_agent.hostkubelet.command_service import Request, unit_command

    account = Account("nobody", 65534, 65534, (65534,), "/", "/bin/sh", "")
    command = unit_command(account, Request("nobody", ["id"], True, ""), "longline-command-1-1.service")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "System has not been booted with systemd" in done.stderr or "nobody" in done.stdout, done.stderr
    assert "nrecognized" not in done.stderr
