"""k9s, as people use it: boxes and their pods, live, with what they use; logs that go on; a shell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.fleets import RealFleet
from tests.e2e.cluster import build
from tests.support.kubectl_choice import find_kubectl
from tests.support.pty_session import PtySession
from tests.support.waits import Deadline, scaled_s

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SEEN_S = 30.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|[\x00-\x1f]+")


class Screen(PtySession):
    """A terminal on which programs draw: what has appeared on it is looked at without its control sequences."""

    def see(self, pattern: str) -> None:
        """Wait until something appears.

        Raises:
            AssertionError: it did not in time, or the program ended before.
        """
        deadline = Deadline(SEEN_S)
        while not re.search(pattern, shown := _CONTROL.sub(" ", self.output)):
            assert not deadline.passed(), f"{pattern!r} did not appear within {scaled_s(SEEN_S):g} s: {shown[-4000:]}"
            assert self._read(0.1), f"it ended: {shown[-4000:]}"
        self.output = ""


@pytest.fixture
def k9s(boxes: RealFleet) -> Iterator[Screen]:
    """k9s with nothing of the machine's own configuration, at the list of nodes."""
    try:
        program = build.k9s()
    except build.BuildFailed as failed:
        pytest.skip(str(failed))
    folders = {f"XDG_{name}_HOME": str(boxes.folder / "k9s" / name) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    path = {"PATH": f"{find_kubectl().parent}:/usr/bin:/bin", "TERM": "xterm-256color", "SHELL": "/bin/sh"}
    # It opens its controlling terminal by name, so it must have one.
    command = ["setsid", "--ctty", "--wait", str(program), "--kubeconfig", str(boxes.kubeconfig), "--refresh", "1"]
    with Screen(
        [*command, "--command", "nodes", "--splashless", "--logoless"],
        env={**boxes.env, **folders, **path}, size=(45, 200), cwd=boxes.folder,
    ) as screen:  # fmt: skip
        yield screen


def test_nodes_and_pods_are_live(boxes: RealFleet, k9s: Screen) -> None:
    k9s.see(r"%CPU\s+MEM(.|\n)*box-7\s+Ready(.|\n)*box-8\s+NotReady")
    boxes.cluster.start_box("box-8")
    k9s.see(r"Ready")
    k9s.type(":pods\r")
    k9s.see(r"box-7\s+\S+\s+\d/\d(.|\n)*box-8\s+\S+\s+\d/\d")
    boxes.cluster.boxes["box-8"].agent.stop()


def test_logs_go_on(boxes: RealFleet, k9s: Screen) -> None:
    k9s.see(r"box-7\s+Ready")
    k9s.type(":pods\r")
    k9s.see(r"box-7\s+\S+\s+\d/\d")
    k9s.type("\r")  # its containers
    k9s.see(r"nginx\.service(.|\n)*app\.log")
    k9s.type("jjl")  # down to app.log
    k9s.see(r"line 19")
    with boxes.log.open("a") as log:
        log.write("a line that came later\n")
    k9s.see("a line that came later")


def test_a_shell(boxes: RealFleet, k9s: Screen, tmp_path: Path) -> None:
    k9s.see(r"box-7\s+Ready")
    k9s.type(":pods\r")
    k9s.see(r"box-7\s+\S+\s+\d/\d")
    k9s.type("\r")
    k9s.see(r"host\s")
    k9s.type("s")
    k9s.see(r"[#$] ")
    k9s.type(f"echo from $((40 + 2)) > {tmp_path / 'said'}; echo seen-$((6 * 7))\r")
    k9s.see("seen-42")
    assert (tmp_path / "said").read_text() == "from 42\n"
    k9s.type("exit\r")
    k9s.see(r"app\.log")
