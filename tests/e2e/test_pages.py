"""The commands that README and docs tell people to type, typed: against a server, a box and a kubectl of this build.

A block is run as it stands, in bash, with paths of the system led into a folder of the test, and with the programs that
there are none of here (systemctl, sshd) replaced by small ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.cluster import edit_toml
from tests.support.kubectl_choice import find_kubectl
from tests.support.pages import TOP, Block, commands
from tests.support.ports import free_ports
from tests.support.processes import BIN, Daemon, environment
from tests.support.targets import TargetProcess
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

STUBS = {
    # Of `systemctl enable --now X` the test starts X; the account of a service is that of the test.
    "systemctl": 'echo "$@" >> "$ROOT/systemctl.log"',
    # ssh itself is not under test: what it is given as its way to the box is, with one line each way.
    "ssh": """test "$1" = -o; command=${2#ProxyCommand=}
command=${command//%h/${3#*@}}; command=${command//%p/$SSH_PORT}
answer=$( (echo hello; sleep 1) | bash -c "$command"); test "$answer" = hello""",
}


@dataclass
class Sandbox:
    """A system of its own below a folder, with what the blocks have made so far."""

    root: Path
    ports: dict[str, int]
    """`echo`, `web`; and those that a page names by number."""
    daemons: list[Daemon] = field(default_factory=list)
    replaced: list[tuple[str, str]] = field(default_factory=list)

    def run(self, name: str, *, folder: Path | None = None, before: str = "") -> str:
        """Run the block that is marked `run: NAME`; returns what it prints.

        Args:
            name: the marker's.
            folder: where it is run; a folder for what people bring along when None.
            before: commands of this test that set variables which the page speaks of.

        Raises:
            AssertionError: one of its commands failed.
        """
        block = self.block(name)
        text = block.text
        for word, other in self.replaced:
            text = text.replace(word, other)
        argv = ["bash", "-euo", "pipefail", "-c", f"{before}\n{text}"]
        where = folder or self.root / "here"
        where.mkdir(exist_ok=True)
        done = subprocess.run(
            argv,
            cwd=where,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled_s(60),
        )
        assert done.returncode == 0, f"{block}:\n{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    @staticmethod
    def block(name: str) -> Block:
        (found,) = [block for block in commands() if block.marker == f"run: {name}"]
        return found

    @property
    def env(self) -> dict[str, str]:
        path = f"{self.root / 'stubs'}:{find_kubectl().parent}:{os.environ['PATH']}"
        return environment(
            {
                "PATH": path,
                "ROOT": str(self.root),
                "HOME": str(self.root),
                "SSH_PORT": str(self.ports["echo"]),
                # Where it is looked for without `--config`, below this folder.
                "LONGLINE_CLOUD_SERVER_CONFIG": str(self.root / "var/lib/cloud-server/cloud-server.toml"),
            }
        )

    def start(self, name: str, *words: str) -> Daemon:
        """What systemd would do now: the command of the unit that the block has installed."""
        unit = (self.root / "etc/systemd/system" / f"{name}.service").read_text()
        found = re.search(r"^ExecStart=/opt/longline/bin/(.*)$", unit, re.MULTILINE)
        assert found is not None
        assert f"enable --now {name}" in (self.root / "systemctl.log").read_text()
        argv = [word.replace("/var/lib", str(self.root / "var/lib")) for word in found[1].split()]
        daemon = Daemon(name, argv, self.root / f"{name}.log")
        self.daemons.append(daemon)
        return daemon.start().wait_ready(scaled_s(20))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("pages")
    for folder in ("stubs", "etc/systemd/system", "var/lib", "var/log", "here"):
        (root / folder).mkdir(parents=True)
    for name, text in STUBS.items():
        (root / "stubs" / name).write_text(f"#!/bin/bash\nset -eu\n{text}\n")
        (root / "stubs" / name).chmod(0o755)
    for program in ("cloud-server", "edge-agent", "longline"):
        (root / "stubs" / program).symlink_to(BIN / program)
    (root / "here" / "packaging").symlink_to(TOP / "packaging")
    tunnel, connect, fleet, socks = free_ports(4)
    with TargetProcess(["echo", "web"]) as targets:
        made = Sandbox(root, {**targets.ports, "7443": tunnel, "7444": connect, "7445": fleet, "1080": socks})
        made.replaced = [
            ("/etc/", f"{root}/etc/"), ("/var/", f"{root}/var/"), ("/opt/longline/bin", str(BIN)),
            ("cloud.example.com", "127.0.0.1"), ("box-7:80", f"box-7:{targets.ports['web']}"),
            *((f":{number}", f":{made.ports[number]}") for number in ("7443", "7444", "1080")),
        ]  # fmt: skip
        try:
            yield made
        finally:
            for daemon in made.daemons:
                daemon.close()


@pytest.fixture(scope="module")
def installed(sandbox: Sandbox) -> Sandbox:
    """The README's way from nothing to a box that is connected."""
    sandbox.replaced.insert(0, ("systemctl enable", "configure_the_ports_of_this_test; systemctl enable"))
    state = sandbox.root / "var/lib/cloud-server"
    changes = {
        "tunnel": {"listen": [f"127.0.0.1:{sandbox.ports['7443']}"]},
        "connect": {"unix": "connect.sock", "listen": f"127.0.0.1:{sandbox.ports['7444']}"},
        "fleet": {"listen": f"127.0.0.1:{sandbox.ports['7445']}"},
        "socks": {"listen": f"127.0.0.1:{sandbox.ports['1080']}"},
    }
    sandbox.run("cloud host", before="configure_the_ports_of_this_test() { :; }")
    edit_toml(state / "cloud-server.toml", changes)
    kubeconfig = state / "admin.kubeconfig"
    kubeconfig.write_text(kubeconfig.read_text().replace(":7445", f":{sandbox.ports['7445']}"))
    sandbox.start("cloud-server")
    sandbox.run("box", before="configure_the_ports_of_this_test() { :; }")
    log = sandbox.root / "var/log/app.log"
    log.write_text("all is well\n")
    user = os.environ.get("USER") or subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    edit_toml(
        sandbox.root / "var/lib/edge-agent/edge-agent.toml",
        {
            "allow": [{"target": f"127.0.0.1:{sandbox.ports[name]}"} for name in ("echo", "web")],
            "host": {"exec": True, "user": user, "files": [str(log)]},
        },
    )
    sandbox.start("edge-agent")
    return sandbox


def test_kubectl_does_what_the_readme_says(installed: Sandbox) -> None:
    # No systemd here, so that a file stands for the unit; and what follows for ever is ended.
    installed.replaced.insert(0, ("kubectl logs -f box-7 -c nginx.service", "kubectl logs box-7 -c app.log"))
    said = installed.run("kubectl")
    assert re.search(r"^box-7 +Ready", said, re.MULTILINE)
    assert "all is well" in said
    assert (installed.root / "here/app.log").read_text() == "all is well\n"


def test_a_user_may_do_what_their_role_says_and_nothing_else(installed: Sandbox) -> None:
    said = installed.run("ann")
    assert re.search(r"^box-7 +Ready", said, re.MULTILINE)
    assert "all is well" in said
    listed = said.rpartition("Verbs")[2]
    assert ("pods/log" in listed, "pods/exec" in listed) == (True, False)
    argv = ["kubectl", "--kubeconfig", "ann.kubeconfig", "exec", "box-7", "--", "id"]
    done = subprocess.run(
        argv, cwd=installed.root / "here", env=installed.env, capture_output=True, text=True, timeout=scaled_s(30)
    )
    assert (done.returncode, "default deny: no rule lets user ann exec" in done.stderr) == (1, True), done


def test_the_curl_of_the_configuration_page_works_at_the_first_try(installed: Sandbox) -> None:
    state = installed.root / "var/lib/cloud-server"
    fetched = installed.run("curl", folder=state).splitlines(keepends=True)[-1]  # behind what `user add` prints
    assert "hello" in fetched
    token = "token=$(cloud-server user token admin --config cloud-server.toml)"
    assert installed.run("curl by socks", folder=state, before=token) == fetched


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_ssh_goes_through_the_operators_command(installed: Sandbox) -> None:
    config = installed.root / "var/lib/cloud-server/cloud-server.toml"
    argv = ["cloud-server", "user", "kubeconfig", "admin", "--config", str(config)]
    made = subprocess.run(argv, env=installed.env, capture_output=True, text=True, check=True, timeout=scaled_s(30))
    (installed.root / "here/me.kubeconfig").write_text(made.stdout)
    installed.run("ssh")


def test_certificates_are_renewed_and_replaced_as_the_page_says(installed: Sandbox) -> None:
    """The last test of these: the kubeconfigs of the others are worth nothing after it."""
    assert "127.0.0.1" in installed.run("certificates")
    assert "renewed" in installed.run("another name")
    assert "has a new key" in installed.run("rotate key")
    assert "0 of 1 agents have not got" in _shown(
        installed, "authority add", "0 of 1 agents have not got the second one"
    )
    said = _shown(installed, "authority move", "drop would lock out no agent")
    assert "signs from now on" in said
    # Nobody waits 12 hours here for the ends of the certificates that the kubectls of the other tests were given.
    installed.replaced.insert(0, ("authority drop", "authority drop --force"))
    assert "is not trusted any more" in installed.run("authority drop")


def _shown(installed: Sandbox, block: str, until: str) -> str:
    """What a block prints, and what `authority show` says when the agent has come with its new certificate."""
    said = installed.run(block)
    show = ["cloud-server", "authority", "show"]
    shown = ""

    def looks_so() -> bool:
        nonlocal shown
        shown = subprocess.run(show, env=installed.env, capture_output=True, text=True, check=True).stdout
        return until in shown

    wait_until(looks_so, until, 20)
    return said + shown
