"""docs/howto/five-people.md: its policy, its boxes and its commands, as a reader would have them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cluster import Box, Cluster, cluster
from tests.support.kubectl_choice import find_kubectl
from tests.support.kubectl_user import KubectlUser
from tests.support.pages import HOWTO, blocks, blocks_of
from tests.support.processes import BIN, Daemon, environment, run_command
from tests.support.targets import Target
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s, sooner_than

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as another account"),
]

PAGE = HOWTO / "five-people.md"
BOXES = ("lyon-1", "paris-1")
TOKENS, USERS, KUBECONFIGS, LOOK, OLGA, CARL, CONTRACTOR, EXPLAIN, END = range(9)
"""The page's blocks of commands."""


@dataclass
class Place:
    """A server, two boxes and a folder with what the page's commands have made."""

    cluster: Cluster
    replaced: dict[str, str]
    here: Path

    def text(self, text: str) -> str:
        """What the page says, for this test's ports, files and account."""
        for word, other in self.replaced.items():
            text = text.replace(word, other)
        return text

    def run(self, number: int) -> str:
        """Type a block; returns what it prints."""
        block = [block for block in blocks_of(PAGE) if block.marker.startswith("run: ")][number]
        done = self.type(block.text)
        assert done.returncode == 0, f"{block}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def type(self, text: str, *, who: str = "") -> subprocess.CompletedProcess[str]:
        """Type commands, with somebody's kubeconfig."""
        env = {
            "PATH": f"{find_kubectl().parent}:{BIN}:{os.environ['PATH']}",
            "HOME": str(self.here),
            "LONGLINE_CLOUD_SERVER_CONFIG": str(self.cluster.config),
            **({"KUBECONFIG": f"{who}.kubeconfig"} if who else {}),
        }
        argv = ["bash", "-euo", "pipefail", "-c", self.text(text)]
        return subprocess.run(
            argv, cwd=self.here, env=environment(env), capture_output=True, text=True, timeout=scaled_s(90)
        )

    def refused(self, who: str, text: str) -> str:
        """What somebody is told who may not do something."""
        done = self.type(text, who=who)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def join(self, name: str) -> None:
        """A box by the token that the page's commands have made, and with the file of the page."""
        state = self.cluster.folder / name
        where = ["--server", self.cluster.tunnel_address, "--token-file", str(self.here / f"{name}.token")]
        run_command("edge-agent", "join", *where, "--state", str(state))
        config, _ = blocks(PAGE, "toml")
        (state / "edge-agent.toml").write_text(self.text(config))
        agent = Daemon(name, ["edge-agent", "run", "--config", str(state / "edge-agent.toml")], state / "log")
        self.cluster.boxes[name] = Box(name=name, state=state, agent=agent)
        self.cluster.start_box(name)


class Person(KubectlUser):
    """Somebody at a terminal, with the kubeconfig that the page's commands have made."""

    def __init__(self, place: Place, name: str) -> None:
        self.kubeconfig, self.folder = place.here / f"{name}.kubeconfig", place.here

    @property
    def env(self) -> dict[str, str]:
        """With our programs in PATH, as the plugin is found by name."""
        return {**super().env, "PATH": f"{BIN}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with cluster() as made, Target("web", "127.0.0.1") as web:
        made.start()
        log = made.folder / "app.log"
        log.write_text("all is well\n")
        here = made.folder / "here"
        here.mkdir()
        replaced = {
            "cloud.example.com:7443": made.tunnel_address,
            "/var/log/app.log": str(log),
            "127.0.0.1:80": f"127.0.0.1:{web.port}",
            "lyon-1:80": f"lyon-1:{web.port}",
            "paris-1:80": f"paris-1:{web.port}",
            "systemctl restart app.service": "echo restarted app.service",
            "deploy": "nobody",
        }
        yield Place(made, replaced, here)


def test_everybody_does_what_they_need_and_nothing_else(place: Place) -> None:
    place.run(TOKENS)
    for name in BOXES:
        place.join(name)
    _, policy = blocks(PAGE, "toml")
    place.cluster.policy.write_text(place.text(policy))
    assert "good, 2 tests passed" in place.run(USERS)
    place.run(KUBECONFIGS)
    wait_until(lambda: place.type("kubectl get pods", who="ada").stdout.count("Running") == 2, "the boxes are pods")

    said = place.run(LOOK)
    head, *_ = [block.text for block in blocks_of(PAGE) if block.language == "text"]
    assert head in said
    assert re.search(r"^carl +on-call +look, shell +1 login ", said, re.MULTILINE)
    assert re.search(r"^admin .* revoked ", said, re.MULTILINE)
    assert "generation 2" in said
    assert ", 4 roles, 5 bindings" in said

    said = place.run(OLGA)
    assert {"lyon-1", "paris-1"} <= set(re.findall(r"^\S+", said, re.MULTILINE))
    assert "all is well" in said
    assert "restarted app.service" in said
    assert "pods/exec" in said
    assert "LL5030" in place.refused("olga", "kubectl exec lyon-1 -- sh")
    assert "olga may not administer this server, by rule default deny" in place.refused("olga", "longline opens kill 1")

    said = place.run(CARL)
    assert said.startswith("nobody\nyes\n")
    assert "LL5030" in place.refused("omar", "kubectl exec lyon-1 -- id")
    with Person(place, "carl").shell("exec", "-it", "lyon-1", "--", "sh") as shell:
        shell.type("echo rec''orded; exit\n")
        shell.expect("recorded")
        assert shell.wait() == 0
    recordings = place.type("longline recordings lyon-1 -o name", who="ada").stdout.split()
    played = [place.type(f"longline play {one} --speed 100", who="ada").stdout for one in recordings]
    assert any("recorded" in one for one in played)
    assert "LL" in place.refused("carl", f"longline play {recordings[0]}")

    said = place.run(CONTRACTOR)
    assert ("lyon-1" in said, "paris-1" in said, "HTTP/1.1 200" in said) == (True, False, True)
    assert "NotFound" in place.refused("contractor", "kubectl get node paris-1")
    refused = place.refused("contractor", "kubectl exec lyon-1 -- id")
    assert 'pods "lyon-1" is forbidden: User "contractor" cannot create resource "pods/exec"' in refused
    refused = place.refused("contractor", "longline connect paris-1:80")
    assert "not allowed by rule default deny: no rule lets user contractor connect to localhost:" in refused

    said = place.run(EXPLAIN)
    assert "denied by default deny" in said
    assert "allowed by restart.allow[0]" in said


def test_it_is_taken_away(place: Place) -> None:
    """Behind the other one, with what that has made."""
    port = place.text("127.0.0.1:80").rpartition(":")[2]
    env = environment({"HOME": str(place.here), "KUBECONFIG": str(place.here / "contractor.kubeconfig")})
    argv = [str(BIN / "longline"), "connect", f"lyon-1:{port}"]
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as held:
        wait_until(lambda: "contractor" in place.type("longline opens", who="ada").stdout, "it is open")
        with sooner_than(5, "the end of what the contractor had"):
            place.run(END)
            assert held.wait(10) != 0
    place.cluster.boxes["lyon-1"].agent.wait_for_log("contractor was revoked")
    assert "LL2041" in place.refused("contractor", "longline ls")
    assert "LL2042" in place.refused("omar", "longline ls")
    assert "restarted" in place.type("kubectl exec lyon-1 -- systemctl restart app.service", who="omar-new").stdout
    assert "forbidden" in place.refused("carl", "kubectl exec lyon-1 -- id -un")
