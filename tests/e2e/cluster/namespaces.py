"""The namespaces that a node lives in, held by its first process (`node_init.sh`): they end when that one does."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

from tests.support.waits import scaled_s

INIT = Path(__file__).parent / "node_init.sh"
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
"""Put before a command: however its parent ends, it does not outlive it."""


class NodeFailed(Exception):
    """A node could not be set up; the text says why."""


class Namespaces:
    """Mounts, processes and network of one node. Use as a context manager."""

    def __init__(self, folder: Path, programs: Path, cni: Path) -> None:
        """
        Args:
            folder: Its `run` and `var` become the node's /run and /var.
            programs: Becomes /run/programs.
            cni: Becomes /run/cni.
        """
        namespaces = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child")
        argv = [*DIES_WITH_PARENT, *namespaces, str(INIT), str(folder), str(programs), str(cni)]
        # It ends with its standard input, and so with this process.
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        if (said := self._process.stdout.readline().strip()) != "ready":
            rest = self._process.communicate(timeout=scaled_s(10))[0]
            raise NodeFailed(f"the node's namespaces could not be made: {said} {rest}".strip())
        self.pid = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])
        """Of the first process, as it is seen from outside."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def enter(self) -> list[str]:
        """What comes before a command that runs on the node; killing it kills the command."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--", *DIES_WITH_PARENT]

    @property
    def enter_network(self) -> list[str]:
        """What comes before a command of this machine that uses the node's network."""
        # Not `ip netns exec`: that mounts /sys anew, and the process no longer sees its cgroup.
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *argv: str, timeout_s: float = 30.0) -> str:
        """Run a command on the node to its end, and return its output.

        Raises:
            NodeFailed: it did not exit with 0.
        """
        done = subprocess.run(
            [*self.enter, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=scaled_s(timeout_s)
        )
        if done.returncode:
            raise NodeFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def close(self) -> None:
        """End all processes of the node, and with them its mounts and its network."""
        self._process.kill()
        self._process.communicate()
